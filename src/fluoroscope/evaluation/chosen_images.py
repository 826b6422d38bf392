"""The images that are scored: those of a model, of an ensemble, or of a part of the patients."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fluoroscope.data.study_table import Studies
from fluoroscope.errors import plural
from fluoroscope.evaluation.ensemble import (
    Ensemble,
    Part,
    joint_calibration,
    not_calibrated,
    part_of,
)
from fluoroscope.evaluation.members import Member
from fluoroscope.evaluation.other_collection import draw_patients
from fluoroscope.evaluation.other_models import Loading, Others, member_logits
from fluoroscope.evaluation.scored_images import (
    ScoredImages,
    scored_images,
    some_of,
    with_probability,
)
from fluoroscope.model.scores import Predictions
from fluoroscope.run.run_folder import prediction_table
from fluoroscope.statistics import macro_auroc
from fluoroscope.trained.calibration import Calibration
from fluoroscope.trained.loading import Trained


class Chosen(NamedTuple):
    """The images that are scored, with the probabilities of the model or the ensemble.

    Attributes:
        predictions: of these images.
        calibration: of the model or the ensemble; None if there is none.
        ensemble: None for one model.
        set_aside: images of the patients for recalibration, which are not scored.
    """

    predictions: Predictions
    calibration: Calibration | None
    ensemble: Ensemble | None = None
    set_aside: Predictions | None = None

    def scored(
        self,
        studies: Studies,
        thresholds: Tensor,
        point: str,
        own: Mapping[str, Callable[..., float]],
    ) -> ScoredImages:
        """The images as `run.summary` takes them.

        Args:
            studies: with K labels.
            thresholds: of the first model [K].
            point: the operating point at which an ensemble decides.
            own: of `scores.score`.
        """
        if self.ensemble is not None and self.calibration is not None:
            cuts = [self.calibration.labels[name].raw_points[point] for name in studies.labels]
            thresholds = torch.tensor(cuts, dtype=torch.float64).nan_to_num(nan=0.5)
        return scored_images(self.predictions, thresholds, studies.labels, own)

    @property
    def calibrated(self) -> str:
        """Where the calibration of an ensemble comes from; empty for one model."""
        if self.ensemble is None:
            return ""
        return "each model by its own temperatures, fitted on its validation"

    def notes(self) -> list[str]:
        """What was left out, as sentences without full stops."""
        said = []
        if self.ensemble is not None:
            said.append(
                f"an ensemble of {len(self.ensemble.fingerprints)} models; its operating points "
                f"are {self.ensemble.thresholds}"
            )
            if left := self.ensemble.left_out:
                said.append(f"{plural(left, 'image')} that some model has seen, left out")
        if self.set_aside is not None:
            images = plural(len(self.set_aside.rows), "image")
            said.append(f"{images} set aside for recalibration, not scored")
        return said


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
        return Chosen(predictions, calibration)
    labels = studies.labels
    own = Member(str(first.place), first, dict(zip(labels, first.labels, strict=True)))
    if calibration is None:
        raise not_calibrated(own.place)
    parts = [Part(own, calibration), *(part_of(m, labels, points) for m in others.members)]
    kept = some_of(predictions, others.kept)
    logits = [predictions.logits.numpy()[others.kept].astype(float)]
    for member in others.members:
        logits.append(member_logits(member, studies, split, loading)[others.kept])
    each = [part.probability(given) for part, given in zip(parts, logits, strict=True)]
    joint, how = joint_calibration(parts, labels, points)
    ensemble = Ensemble(
        fingerprints=[part.member.trained.fingerprint for part in parts],
        auroc=[_auroc(with_probability(kept, p), studies) for p in each],
        left_out=int((~others.kept).sum()),
        thresholds=how,
    )
    split_of = str(first.checkpoint["split_fingerprint"])
    together = Calibration(joint, " ".join(ensemble.fingerprints), split_of, {})
    return Chosen(with_probability(kept, np.mean(each, axis=0)), together, ensemble)


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
