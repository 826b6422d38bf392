"""Comparisons of an evaluation: groups of images, another model, another collection."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fluoroscope.config.report import Rule
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import plural
from fluoroscope.evaluation.attributes import Attribute
from fluoroscope.evaluation.chosen_images import Chosen
from fluoroscope.evaluation.contents import LabelScores
from fluoroscope.evaluation.other_collection import (
    OtherCollection,
    other_collection,
    recalibrate,
)
from fluoroscope.evaluation.other_models import Loading, Others, member_logits
from fluoroscope.evaluation.paired import Against, compare_models, paired_sentences
from fluoroscope.evaluation.scored_images import some_of
from fluoroscope.evaluation.subgroups import Subgroups, compare_groups
from fluoroscope.model.scores import Predictions
from fluoroscope.run.run_folder import prediction_table
from fluoroscope.trained.calibration import Calibration, sigmoid


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
    place = np.searchsorted(np.flatnonzero(studies.rows_of(split)), rows)
    new = others.new[place]
    logits = member_logits(member, studies, split, loading)[place[new]]
    one = prediction_table(studies.table, studies.labels, some_of(predictions, new))
    shared = [label for label in labels if label in member.labels]
    other = one.copy()
    for label in shared:
        column = member.trained.labels.index(member.labels[label])
        other[f"{label}_probability"] = sigmoid(logits[:, column])
    pairs = compare_models(one, other, shared, Rule(margin=margin))
    known = studies.patients_known != "none"
    called = f"the model with the weights {member.trained.fingerprint}"  # a path may name a place
    return Against(
        fingerprint=member.trained.fingerprint,
        images=len(one),
        patients=int(one["group"].nunique()) if known else None,
        left_out=int((~new).sum()),
        labels_not_compared=[label for label in labels if label not in shared],
        margin=margin,
        pairs=pairs,
        sentences=[*paired_sentences(pairs, called), *_left_out(int((~new).sum()))],
    )


def _left_out(images: int) -> list[str]:
    said = f"{plural(images, 'image')} that the other model has seen, left out of the comparison"
    return [said] if images else []


def subgroups(
    table: pd.DataFrame,
    studies: Studies,
    attributes: Sequence[Attribute],
    labels: Sequence[str],
    calibration: Calibration | None,
    point: str,
) -> Subgroups | None:
    """The groups of the scored images; None if there is no attribute to divide them by.

    Args:
        table: predictions of the scored images.
        attributes: of these images.
        labels: those to score.
        calibration: of the model.
        point: the operating point of sensitivity and specificity.
    """
    if not attributes:
        return None
    known = {} if calibration is None else calibration.labels
    cuts = {name: own.raw_points.get(point, np.nan) for name, own in known.items()}
    named = point if known else ""
    return compare_groups(table, labels, attributes, cuts, named, studies.patients_known)


def elsewhere(
    chosen: Chosen,
    table: pd.DataFrame,
    studies: Studies,
    names: Mapping[str, str],
    scores: Mapping[str, LabelScores],
    share: float | None,
) -> OtherCollection:
    """What the evaluation says of another collection.

    Args:
        table: predictions of the scored images.
        names: the collection's name of each label that is scored.
        scores: of these labels.
        share: of the patients that were set aside for recalibration.
    """
    known = {} if chosen.calibration is None else chosen.calibration.labels
    again = None
    if share is not None and chosen.set_aside is not None:
        aside = prediction_table(studies.table, studies.labels, chosen.set_aside)
        again = recalibrate(aside, table, list(names), known, share)
    return other_collection(studies.source, names, scores, known, again)
