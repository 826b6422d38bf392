"""The images that a model ranks most wrongly."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

MOST = 10


class WorstError(NamedTuple):
    """An image on the wrong side of many others.

    Attributes:
        row: of the image in the study table.
        label: name.
        present: whether the image has the finding.
        probability: of the finding.
        beaten_frac: share of the images of the other class that should have ranked the other way
            round: without the finding and scored higher, or with it and scored lower. Ties count
            half.
        place: of the image in the table of predictions, from 0.
    """

    row: int
    label: str
    present: bool
    probability: float
    beaten_frac: float
    place: int


def worst_errors(
    predictions: pd.DataFrame, labels: Sequence[str], most: int = MOST
) -> list[WorstError]:
    """Missed findings, then false alarms, each by falling `beaten_frac`; [] if every rank is right.

    Half of them are of each kind, as far as there are enough, since both measures that come to mind
    list one kind alone: of a rare finding the largest log losses are all missed findings, and the
    largest `beaten_frac` all false alarms. Each image is listed once per kind, with its worst
    label. Equal ones are ordered by the distance of the probability from the truth, then by row.

    Args:
        predictions: as `run_folder.prediction_table` makes them.
        labels: names.
        most: of all errors; even.
    """
    missed, alarms = (_of_kind(predictions, labels, present, most) for present in (True, False))
    missed = missed[: max(most // 2, most - len(alarms))]
    return [*missed, *alarms[: most - len(missed)]]


def _of_kind(
    predictions: pd.DataFrame, labels: Sequence[str], present: bool, most: int
) -> list[WorstError]:
    found = [e for label in labels for e in _of_label(predictions, label, present, most)]
    found.sort(key=lambda e: (-e.beaten_frac, -abs(e.present - e.probability), e.row))
    first: dict[int, WorstError] = {}
    for error in found:
        first.setdefault(error.place, error)
    return list(first.values())[:most]


def _of_label(predictions: pd.DataFrame, label: str, present: bool, most: int) -> list[WorstError]:
    truth = predictions[label].to_numpy(dtype=float)
    score = predictions[f"{label}_probability"].to_numpy(dtype=float)
    row = predictions["row"].to_numpy()
    sign = 1 if present else -1
    own, others = np.flatnonzero(truth == present), np.sort(sign * score[truth == 1 - present])
    if not len(others):
        return []
    sides = [np.searchsorted(others, sign * score[own], side) for side in ("left", "right")]
    beaten = 1 - np.sum(sides, axis=0) / (2 * len(others))
    order = np.lexsort((row[own], sign * score[own], -beaten))[:most]
    return [
        WorstError(int(row[i]), label, present, float(score[i]), float(share), int(i))
        for i, share in zip(own[order], beaten[order], strict=True)
        if share > 0
    ]
