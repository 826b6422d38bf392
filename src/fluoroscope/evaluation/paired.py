"""Two models on the same images, paired by patient, with the findings of the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fluoroscope.config.report import Rule
from fluoroscope.errors import plural
from fluoroscope.evaluation.contents import UNKNOWN, Estimate
from fluoroscope.reporting.comparison import finding_of
from fluoroscope.reporting.inference import Difference, simultaneous
from fluoroscope.statistics import (
    Floats,
    count_classes,
    fewest_patients,
    logit_interval,
    macro_auroc,
)

MacroScore = tuple[float, Floats]  # of `statistics.macro_auroc`
SAID = {
    "better": "scores better than",
    "worse": "scores worse than",
    "equivalent": "scores the same within the margin as",
    "undecided": "may score better or worse than",
}


@dataclass(frozen=True)
class Pair:
    """Two models on one label, or on all that are judged.

    Attributes:
        label: None for the mean over the judged labels.
        auroc, other_auroc: of the evaluated model, and of the other one.
        difference: of the first minus the second; all differences' intervals hold together.
        finding: better, worse, equivalent or undecided, as the report has it.
        why_not: why a label is not judged; empty if it is.
    """

    label: str | None
    auroc: Estimate
    other_auroc: Estimate
    difference: Estimate
    finding: str
    why_not: str = ""


@dataclass(frozen=True)
class Against:
    """The evaluated model compared with another one.

    Attributes:
        fingerprint: of the other model's weights.
        images, patients: that both models scored and neither has seen; patients is None if they
            are unknown.
        left_out: scored images that the other model has seen in its training.
        labels_not_compared: that only one of the models knows.
        margin: differences of AUROC up to this size do not matter.
        pairs: the mean first if there are several labels.
        sentences: what was found, without full stops.
    """

    fingerprint: str
    images: int
    patients: int | None
    left_out: int
    labels_not_compared: list[str]
    margin: float
    pairs: list[Pair]
    sentences: list[str]


def compare_models(
    one: pd.DataFrame, other: pd.DataFrame, labels: Sequence[str], rule: Rule
) -> list[Pair]:
    """Compare the AUROC of two models, of each label and their mean.

    The differences form one family (`inference.simultaneous`). They vary over patients only: they
    are those of these two models, and other seeds of the same settings may differ.

    Args:
        one, other: predictions for the same images in the same order, as
            `run_folder.prediction_table` makes them.
        labels: that both models know.
        rule: the margin, and the fewest patients of each class.
    """
    lacking = {label: _lacking(one, label, rule.min_patients) for label in labels}
    judged = [label for label in labels if not lacking[label]]
    sets: dict[str | None, list[str]] = {None: judged} if len(labels) > 1 and judged else {}
    sets |= {label: [label] for label in judged}
    scores = {at: (macro_auroc(one, own), macro_auroc(other, own)) for at, own in sets.items()}
    family = simultaneous([_difference(*pair) for pair in scores.values()])
    found = {
        at: _pair(at, pair, one[["group", *sets[at]]], bounds[:2], rule)
        for (at, pair), bounds in zip(scores.items(), family.intervals, strict=True)
    }
    found |= {
        n: Pair(n, UNKNOWN, UNKNOWN, UNKNOWN, "undecided", why) for n, why in lacking.items() if why
    }
    return [found[label] for label in (None, *labels) if label in found]


def _pair(
    label: str | None,
    scores: tuple[MacroScore, MacroScore],
    truth: pd.DataFrame,
    bounds: tuple[float, float],
    rule: Rule,
) -> Pair:
    """The row of one label, or of the mean over the labels of `truth`."""
    fewest = fewest_patients(truth, [str(name) for name in truth.columns.drop("group")])
    one, other = (Estimate(score[0], *logit_interval(*score, fewest)) for score in scores)
    difference = Estimate(one.value - other.value, *bounds)
    return Pair(label, one, other, difference, finding_of(*bounds, rule.margin))


def _lacking(table: pd.DataFrame, label: str, fewest: int) -> str:
    """Which class of a label has too few patients; "" if none has."""
    few = [
        f"{plural(patients, f'{kind} patient')}"
        for kind, (_, patients) in count_classes(table, label).items()
        if patients < fewest
    ]
    return f"only {' and '.join(few)}; a finding needs {fewest} of each" if few else ""


def _difference(one: MacroScore, other: MacroScore) -> Difference:
    return Difference([], np.array([one[0] - other[0]]), (one[1] - other[1])[None])


def paired_sentences(pairs: Sequence[Pair], other: str) -> list[str]:
    """The finding of the mean, or of the only label, and how many labels differ.

    Args:
        other: how to call the other model.
    """
    if not pairs or math.isnan(pairs[0].difference.value):
        return [f"no label has enough patients to compare the model with {other}"]
    first, rest = pairs[0], [pair for pair in pairs if pair.label is not None]
    d = first.difference
    said = [
        f"the model {SAID[first.finding]} {other}: AUROC {d.value:+.3f} "
        f"({d.low:+.3f} to {d.high:+.3f})"
    ]
    for finding in ("better", "worse"):
        names = [str(pair.label) for pair in rest if pair.finding == finding]
        if first.label is None and names:
            said.append(f"{finding} for {', '.join(names)}")
    return said
