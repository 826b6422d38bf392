"""The comparisons of an evaluation: ensemble, groups of images, another model, recalibration."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fluoroscope.config.report import Rule
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError, plural
from fluoroscope.evaluation.attributes import find_attributes
from fluoroscope.evaluation.ensemble import Ensemble, Part, joint_calibration, part_of
from fluoroscope.evaluation.members import Member, logits_of, open_member, unseen_by
from fluoroscope.evaluation.other_collection import draw_patients
from fluoroscope.evaluation.paired import Against, compare_models, paired_sentences
from fluoroscope.evaluation.scored_images import some_of, with_probability
from fluoroscope.evaluation.subgroups import Subgroups, compare_groups
from fluoroscope.model.scores import Predictions
from fluoroscope.run.run_folder import prediction_table
from fluoroscope.statistics import Floats, macro_auroc
from fluoroscope.trained.calibration import Calibration, LabelCalibration, sigmoid
from fluoroscope.trained.loading import Trained


class Loading(NamedTuple):
    """How further models read and score images; see `members.logits_of`."""

    batch_size: int
    num_workers: int | None = None
    precision: str = "32-true"
    accelerator: str = "auto"


class Others(NamedTuple):
    """The further models of an evaluation.

    Attributes:
        members: of the ensemble, without the first; empty for one model.
        against: the model to compare with.
        kept: images of the split that no member has seen, bool [N].
        new: images of the split that `against` has not seen, bool [N].
    """

    members: list[Member]
    against: Member | None
    kept: NDArray[np.bool_]
    new: NDArray[np.bool_]


def open_others(
    places: Sequence[str],
    against: str | None,
    checkpoint: Mapping[str, Any],
    studies: Studies,
    split: str,
    allow_alike: bool,
    accelerator: str = "auto",
) -> Others:
    """Open and check the further models, before any is applied.

    Args:
        places: of the ensemble's members, without the first.
        against: of the model to compare with.
        checkpoint: of the first model, which has not seen the images.
        studies, split, allow_alike: of `leakage.check_unseen`.

    Raises:
        InputError: a model cannot be opened, does not fit, or has seen all images.
    """
    members = [open_member(place, checkpoint, accelerator) for place in places]
    for member in members:
        part_of(member, studies.labels)  # refuses what cannot be averaged
    rows = np.isin(studies.table["split"], [split]) | (split == "all")
    every = np.ones(int(rows.sum()), bool)
    seen = [unseen_by(member, studies, split, allow_alike) for member in members]
    kept = np.logical_and.reduce([every, *seen])
    if not kept.any():
        raise InputError(
            "each image to score was seen by some model of the ensemble; models of different folds "
            "or splits can be scored together only on another collection (data=)"
        )
    other = None if against is None else open_member(against, checkpoint, accelerator)
    new = every if other is None else unseen_by(other, studies, split, allow_alike)
    return Others(members, other, kept, new)


class Chosen(NamedTuple):
    """The images that are scored, with the probabilities of the model or the ensemble.

    Attributes:
        predictions: of these images.
        calibration: by label; empty if there is none.
        ensemble: None for one model.
        set_aside: images of the patients for recalibration, which are not scored.
    """

    predictions: Predictions
    calibration: dict[str, LabelCalibration]
    ensemble: Ensemble | None = None
    set_aside: Predictions | None = None

    def thresholds(self, before: torch.Tensor, labels: Sequence[str], point: str) -> torch.Tensor:
        """The thresholds of `run.summary` [K]: those of an ensemble, or of the one model.

        Args:
            before: those of the first model.
            labels: K names.
            point: the operating point whose thresholds they are.
        """
        if self.ensemble is None:
            return before
        own = [self.calibration[label].raw_points[point] for label in labels]
        return torch.tensor(own, dtype=torch.float64).nan_to_num(nan=0.5)


def average(
    others: Others,
    first: Trained,
    calibration: Calibration | None,
    predictions: Predictions,
    studies: Studies,
    split: str,
    points: Sequence[str],
    loading: Loading,
) -> Chosen:
    """The first model alone, or the mean of it and further members on the images new to all.

    Args:
        first, calibration: of the first model.
        predictions: of the first model for the split.
        points: names of operating points.

    Raises:
        InputError: the first model is not calibrated.
    """
    if not others.members:
        return Chosen(predictions, dict(calibration.labels) if calibration else {})
    labels = studies.labels
    own = Member(str(first.place), first, dict(zip(labels, first.labels, strict=True)))
    parts = [part_of(member, labels) for member in (own, *others.members)]
    kept = some_of(predictions, others.kept)
    logits = [predictions.logits.numpy()[others.kept].astype(float)]
    for member in others.members:
        logits.append(_logits(member, studies, split, loading)[others.kept])
    each = [part.probability(own) for part, own in zip(parts, logits, strict=True)]
    joint, how = joint_calibration(parts, labels, points)
    ensemble = Ensemble(
        checkpoints=[part.member.place for part in parts],
        fingerprints=[part.member.trained.fingerprint for part in parts],
        auroc=[_auroc(with_probability(kept, p), studies) for p in each],
        left_out=int((~others.kept).sum()),
        thresholds=how,
    )
    return Chosen(with_probability(kept, np.mean(each, axis=0)), joint, ensemble)


def _logits(member: Member, studies: Studies, split: str, loading: Loading) -> Floats:
    given = loading.batch_size, loading.num_workers, loading.precision
    return logits_of(member, studies, split, *given)


def _auroc(predictions: Predictions, studies: Studies) -> float:
    table = prediction_table(studies.table, studies.labels, predictions)
    return macro_auroc(table, studies.labels)[0]


def set_aside(chosen: Chosen, studies: Studies, share: float) -> Chosen:
    """Keep a share of the patients for recalibration; see `other_collection.draw_patients`."""
    patient = studies.table["patient"].to_numpy()[chosen.predictions.rows.numpy()]
    drawn = draw_patients(pd.factorize(patient)[0], share)
    return chosen._replace(
        predictions=some_of(chosen.predictions, ~drawn),
        set_aside=some_of(chosen.predictions, drawn),
    )


def against(
    others: Others,
    predictions: Predictions,
    studies: Studies,
    split: str,
    labels: Sequence[str],
    margin: float,
    loading: Loading,
) -> Against | None:
    """Compare with the other model on the scored images that are new to it; None without one.

    Args:
        predictions: of the scored images.
        labels: those to score.
    """
    if others.against is None:
        return None
    member, rows = others.against, predictions.rows.numpy()
    of_split = np.isin(studies.table["split"], [split]) | (split == "all")
    place = np.searchsorted(np.flatnonzero(of_split), rows)
    new = others.new[place]
    logits = _logits(member, studies, split, loading)[place[new]]
    one = prediction_table(studies.table, studies.labels, some_of(predictions, new))
    shared = [label for label in labels if label in member.labels]
    other = one.copy()
    for label in shared:
        column = member.trained.labels.index(member.labels[label])
        other[f"{label}_probability"] = sigmoid(logits[:, column])
    pairs = compare_models(one, other, shared, Rule(margin=margin))
    known = studies.patients_known != "none"
    return Against(
        checkpoint=member.place,
        fingerprint=member.trained.fingerprint,
        images=len(one),
        patients=int(one["group"].nunique()) if known else None,
        left_out=int((~new).sum()),
        labels_not_compared=[label for label in labels if label not in shared],
        margin=margin,
        pairs=pairs,
        sentences=[*paired_sentences(pairs, member.place), *_left_out(int((~new).sum()))],
    )


def _left_out(images: int) -> list[str]:
    said = f"{plural(images, 'image')} that the other model has seen, left out of the comparison"
    return [said] if images else []


def subgroups(
    table: pd.DataFrame,
    studies: Studies,
    chosen: Sequence[str] | None,
    labels: Sequence[str],
    calibration: Mapping[str, LabelCalibration],
    point: str,
    data: Mapping[str, Any],
) -> Subgroups | None:
    """The groups of the scored images; None if there is no attribute to divide them by.

    Args:
        table: predictions of the scored images.
        chosen, data: of `attributes.find_attributes`.
        labels: those to score.
        calibration: by label.
        point: the operating point of sensitivity and specificity.
    """
    attributes = find_attributes(studies.table.iloc[table["row"]], chosen, data)
    if not attributes:
        return None
    cuts = {name: own.raw_points.get(point, np.nan) for name, own in calibration.items()}
    named = point if calibration else ""
    return compare_groups(table, labels, attributes, cuts, named, studies.patients_known)
