"""Scores of the groups of one attribute, and their gaps, without intervals of these."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fluoroscope.errors import plural
from fluoroscope.evaluation.attributes import Attribute
from fluoroscope.evaluation.contents import UNKNOWN, Estimate
from fluoroscope.evaluation.disclosure import hidden_groups
from fluoroscope.evaluation.moving_scores import (
    Gap,
    Score,
    auroc_score,
    mean_score,
    share_score,
)

SMALLEST = 10  # patients of each class
SCORES = ("auroc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Group:
    """The scores of one label, or of all, in one group.

    Attributes:
        attribute, group: names.
        label: None for the mean over labels.
        judged: false if there are fewer than 10 positive or negative images, or patients of them.
        why_not: the sentence that says so; empty if it is judged.
        reference: the group that it is compared with; empty for the reference itself, and if there
            is none.
        labels: number of labels in the mean; those that are judged in the reference too.
        images, positives, negatives: of known truth; of the mean, all images, and None. Positives
            and negatives of few patients are None, see `disclosure`.
        patients: None if patients are unknown.
        prevalence: share of positive images; NaN if their number is not shown.
        auroc, sensitivity, specificity: the latter two at the operating point; NaN without it.
        gaps: by score, those of the group minus those of the reference.
    """

    attribute: str
    group: str
    label: str | None
    images: int
    patients: int | None
    positives: int | None
    negatives: int | None
    judged: bool = False
    why_not: str = ""
    reference: str = ""
    labels: int = 1
    prevalence: Estimate = UNKNOWN
    auroc: Estimate = UNKNOWN
    sensitivity: Estimate = UNKNOWN
    specificity: Estimate = UNKNOWN
    gaps: dict[str, Estimate] = field(default_factory=dict)


class Cell(NamedTuple):
    """One label, or the mean of some, in one group; without scores if it is not judged."""

    row: Group
    scores: dict[str, Score]


class Pair(NamedTuple):
    """A gap, with the place of its row and the name of its score."""

    row: int
    score: str
    gap: Gap


class Table:
    """The predictions, and the number of each image's patient among all that were scored."""

    def __init__(
        self, predictions: pd.DataFrame, thresholds: Mapping[str, float], patients_known: bool
    ) -> None:
        self.predictions, self.thresholds = predictions, thresholds
        self.patients_known = patients_known
        self.patient = pd.factorize(predictions["group"])[0]
        self.total = int(self.patient.max()) + 1 if len(predictions) else 0

    def cells(self, attribute: Attribute, label: str) -> list[Cell]:
        """One label in each group."""
        known, groups = self.predictions[label].isin([0, 1]).to_numpy(), len(attribute.groups)
        hidden = hidden_groups(attribute.of[known], self.patient[known], groups)
        return [self._cell(attribute, group, label, group in hidden) for group in range(groups)]

    def _cell(self, attribute: Attribute, group: int, label: str, hidden: bool) -> Cell:
        inside = attribute.of == group
        truth = self.predictions[label].to_numpy()[inside]
        patient = self.patient[inside]
        known = np.isin(truth, [0, 1])
        row = Group(
            *(attribute.name, attribute.groups[group], label),
            images=int(known.sum()),
            patients=self._patients(patient[known]),
            positives=None if hidden else int((truth == 1).sum()),
            negatives=None if hidden else int((truth == 0).sum()),
            why_not=self._why_not(truth, patient, hidden),
        )
        if row.why_not:
            return Cell(row, {})
        probability = self.predictions[f"{label}_probability"].to_numpy()[inside]
        scores = self._scores(truth, probability, patient, self.thresholds.get(label, math.nan))
        share = share_score(truth == 1, known, patient, self.total).estimate()
        return _judged(replace(row, prevalence=UNKNOWN if hidden else share), scores)

    def _scores(
        self, truth: NDArray, probability: NDArray, patient: NDArray, threshold: float
    ) -> dict[str, Score]:
        scores = {"auroc": auroc_score(probability, truth, patient, self.total)}
        if not math.isnan(threshold):
            called = probability >= threshold
            scores["sensitivity"] = share_score(called, truth == 1, patient, self.total)
            scores["specificity"] = share_score(~called, truth == 0, patient, self.total)
        return scores

    def mean(self, attribute: Attribute, group: int, cells: Sequence[Cell]) -> Cell:
        """The mean of some labels in one group."""
        inside = attribute.of == group
        row = Group(
            *(attribute.name, attribute.groups[group], None),
            images=int(inside.sum()),
            patients=self._patients(self.patient[inside]),
            positives=None,
            negatives=None,
            labels=len(cells),
        )
        if not cells:
            return Cell(replace(row, why_not="no label is judged"), {})
        shared = [name for name in SCORES if all(name in cell.scores for cell in cells)]
        return _judged(row, {n: mean_score([cell.scores[n] for cell in cells]) for n in shared})

    def _why_not(self, truth: NDArray, patient: NDArray, hidden: bool) -> str:
        """Why a label is not judged in a group, without numbers of its classes if they are hidden;
        "" if it is judged.
        """
        few = []
        for kind, value in (("positive", 1), ("negative", 0)):
            images, patients = int((truth == value).sum()), len(np.unique(patient[truth == value]))
            if patients < SMALLEST:
                of = f" of {plural(patients, 'patient')}" if self.patients_known else ""
                few.append(f"{plural(images, f'{kind} image')}{of}")
        if few and hidden:
            all_few = len(np.unique(patient[np.isin(truth, [0, 1])])) < SMALLEST
            of = "" if all_few else "positive or negative "
            return f"fewer than {SMALLEST} {of}{'patients' if self.patients_known else 'images'}"
        return f"only {' and '.join(few)}; {SMALLEST} of each are needed" if few else ""

    def _patients(self, patient: NDArray) -> int | None:
        return len(np.unique(patient)) if self.patients_known else None


def _judged(row: Group, scores: dict[str, Score]) -> Cell:
    estimates = {name: score.estimate() for name, score in scores.items()}
    auroc, sensitivity, specificity = (estimates.get(name, UNKNOWN) for name in SCORES)
    filled = replace(
        row, judged=True, auroc=auroc, sensitivity=sensitivity, specificity=specificity
    )
    return Cell(filled, scores)


def score_attribute(
    table: Table, labels: Sequence[str], attribute: Attribute
) -> list[tuple[list[Cell], list[Pair]]]:
    """The rows and gaps of the mean, if there are several labels, and of each label."""
    by_label = [table.cells(attribute, label) for label in labels]
    parts = [_with_reference(cells) for cells in by_label]
    return ([_of_mean(table, attribute, by_label)] if len(labels) > 1 else []) + parts


def _reference(cells: Sequence[Cell]) -> int | None:
    """The judged group with most images; None if fewer than two groups are judged."""
    judged = [place for place, cell in enumerate(cells) if cell.row.judged]
    return max(judged, key=lambda place: cells[place].row.images) if len(judged) > 1 else None


def _with_reference(cells: list[Cell]) -> tuple[list[Cell], list[Pair]]:
    first = _reference(cells)
    if first is None:
        return cells, []
    pairs = []
    for place, cell in enumerate(cells):
        if place != first and cell.row.judged:
            cells[place] = _compared(cell, cells[first])
            pairs += _gaps(place, cell, cells[first])
    return cells, pairs


def _compared(cell: Cell, reference: Cell) -> Cell:
    return cell._replace(row=replace(cell.row, reference=reference.row.group))


def _gaps(place: int, cell: Cell, reference: Cell) -> list[Pair]:
    both = [name for name in cell.scores if name in reference.scores]
    return [Pair(place, name, Gap(cell.scores[name], reference.scores[name])) for name in both]


def _of_mean(
    table: Table, attribute: Attribute, by_label: Sequence[Sequence[Cell]]
) -> tuple[list[Cell], list[Pair]]:
    """The mean of each group over the labels that are judged there and in the reference."""

    def mean(group: int, labels: set[int]) -> Cell:
        return table.mean(attribute, group, [by_label[k][group] for k in sorted(labels)])

    groups = range(len(attribute.groups))
    judged = [{k for k, cells in enumerate(by_label) if cells[g].row.judged} for g in groups]
    own = [mean(group, judged[group]) for group in groups]
    first = _reference(own)
    if first is None:
        return own, []
    pairs = []
    for group in groups:
        shared = judged[group] & judged[first]
        if group != first and shared:
            reference = mean(first, shared)
            own[group] = _compared(mean(group, shared), reference)
            pairs += _gaps(group, own[group], reference)
    return own, pairs
