"""Scores on changed images: what they show about a label, with simultaneous intervals.

The score here is the AUROC above chance, AUROC - 0.5. The intervals of all changes hold together
with 95 % probability, over all labels and probes of an evaluation. So if the scores depend on no
change, any call-out occurs in at most 5 % of evaluations.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fluoroscope.evaluation.contents import UNKNOWN, Estimate
from fluoroscope.probes.sentences import MACRO, NO_SCORE, sentence
from fluoroscope.reporting.inference import Difference, simultaneous
from fluoroscope.run.score_limits import FEW
from fluoroscope.statistics import Floats, fewest_patients, logit_interval, macro_auroc

KEEPS, LOSES = 0.5, 0.25  # share of the score that matters
UNCHANGED, HIDDEN, WITHIN_VIEWS = "unchanged", "lungs_hidden", "within_views"
SHOWN_ONLY = ("lungs_blurred", "lungs_only")  # lungs without detail or surroundings are no film
CALLED, CLEAR, OPEN = "called out", "clear", "not decided"
# Words of findings that lie outside the lungs, where keeping the score without them is right.
ELSEWHERE = ("fracture", "device", "tube", "catheter", "pacemaker", "scoliosis", "subcutaneous")


@dataclass(frozen=True)
class Probed:
    """The score on changed images.

    Attributes:
        auroc: with its own 95 % interval over patients.
        change: AUROC minus that of the unchanged images; the intervals of all changes hold
            together.
        verdict: `called out`, `clear` or `not decided`; empty if the probe is only shown.
        words: a sentence without a full stop, if the probe is called out.
    """

    auroc: Estimate
    change: Estimate
    verdict: str
    words: str


@dataclass(frozen=True)
class LabelProbes:
    """The probes of one label, or of the mean over the judged labels.

    Attributes:
        why_not: why no verdict is possible; empty if it is.
        auroc: of the unchanged images.
        probes: by name, in the order of `CHANGES`; `within_views` last, if there are several views.
        views: AUROC of each view; unknown if a view has too few images of a class (`FEW`).
    """

    why_not: str
    auroc: Estimate = UNKNOWN
    probes: dict[str, Probed] = field(default_factory=dict)
    views: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class _Measured:
    """An AUROC and the influence of each patient on it [G]."""

    value: float
    influence: Floats
    fewest: int

    @property
    def estimate(self) -> Estimate:
        interval = logit_interval(self.value, self.influence, self.fewest)
        return Estimate(self.value, *interval)

    def minus(self, other: "_Measured | None") -> Difference:
        """The difference to another AUROC, or to chance."""
        value, influence = (0.5, 0.0) if other is None else (other.value, other.influence)
        return Difference((), np.array([self.value - value]), (self.influence - influence)[None])


Found = dict[str, _Measured]  # by probe


def judge(
    table: pd.DataFrame,
    logits: Mapping[str, NDArray[np.floating]],
    why_not: Mapping[str, str],
    views: Sequence[str] | None = None,
) -> dict[str, LabelProbes]:
    """What the probes show about each label, and about the mean of several judged labels.

    Args:
        table: one row per image: `group` (the patient) and the truth of each label.
        logits: by probe [N, K], labels in the order of `why_not`, and "unchanged".
        why_not: by label, why it is not judged; empty if it is.
        views: view of each image [N]; None if they are unknown.
    """
    chosen = {label: [label] for label, reason in why_not.items() if not reason}
    if len(chosen) > 1:
        chosen[MACRO] = list(chosen)
    tables = {name: _with_scores(table, list(why_not), found) for name, found in logits.items()}
    measured = {name: _measure(tables, labels, views) for name, labels in chosen.items()}
    changes = _changes(measured)
    result = {label: LabelProbes(reason) for label, reason in why_not.items()}
    for name, found in measured.items():
        seen = _by_view(tables[UNCHANGED], chosen[name], views)
        result[name] = _label(name, found, changes[name], seen)
    return result


def _with_scores(
    table: pd.DataFrame, labels: Sequence[str], logits: NDArray[np.floating]
) -> pd.DataFrame:
    """For an AUROC only the order of the scores counts, so logits serve as well."""
    columns = {f"{label}_probability": logits[:, k] for k, label in enumerate(labels)}
    return table[["group", *labels]].assign(**columns)


def _measure(
    tables: Mapping[str, pd.DataFrame], labels: Sequence[str], views: Sequence[str] | None
) -> Found:
    fewest = fewest_patients(tables[UNCHANGED], labels)
    found = {name: _Measured(*macro_auroc(t, labels), fewest) for name, t in tables.items()}
    if views is not None and len(set(views)) > 1:
        found[WITHIN_VIEWS] = _within_views(tables[UNCHANGED], labels, views, fewest)
    return found


def _within_views(
    table: pd.DataFrame, labels: Sequence[str], views: Sequence[str], fewest: int
) -> _Measured:
    """Unknown if a label has no two images of one view to compare: a mean is of all its labels."""
    view = pd.factorize(np.asarray(views))[0]
    parts = [macro_auroc(table, [label], view) for label in labels]
    if any(math.isnan(value) for value, _ in parts):
        patients = table["group"].nunique()
        return _Measured(math.nan, np.full(patients, math.nan), fewest)
    return _Measured(*macro_auroc(table, labels, view), fewest)


def _by_view(
    table: pd.DataFrame, labels: Sequence[str], views: Sequence[str] | None
) -> dict[str, Estimate]:
    found = {}
    for view in sorted(set(views or ())):
        rows = table[np.asarray(views) == view]
        enough = all((rows[name] == value).sum() >= FEW for name in labels for value in (0, 1))
        measured = _Measured(*macro_auroc(rows, labels), fewest_patients(rows, labels))
        found[view] = measured.estimate if enough else UNKNOWN
    return found


def _changes(measured: Mapping[str, Found]) -> dict[str, dict[str, Estimate]]:
    """By label and probe, the change of the AUROC with its simultaneous interval.

    Two more per label belong to the family: "score", the AUROC of the unchanged images above
    chance, and "kept", that without the lungs.
    """
    family: dict[tuple[str, str], Difference] = {}
    for label, found in measured.items():
        family[label, "score"] = found[UNCHANGED].minus(None)
        if HIDDEN in found:
            family[label, "kept"] = found[HIDDEN].minus(None)
        for name in found.keys() - {UNCHANGED}:
            family[label, name] = found[name].minus(found[UNCHANGED])
    bounds = simultaneous(list(family.values())).intervals
    result: dict[str, dict[str, Estimate]] = {label: {} for label in measured}
    for (label, name), (low, high, _) in zip(family, bounds, strict=True):
        result[label][name] = Estimate(family[label, name].value, low, high)
    return result


def _label(
    label: str, found: Found, changes: Mapping[str, Estimate], views: dict[str, Estimate]
) -> LabelProbes:
    score = changes["score"]
    above_chance = score.low > 0
    probes = {}
    for name in [name for name in found if name != UNCHANGED]:
        moved, matters = _moved(name, changes)
        verdict = ""
        if name not in SHOWN_ONLY and not (name == HIDDEN and lies_elsewhere(label)):
            verdict = _verdict(moved, matters * score.value) if above_chance else OPEN
        called = verdict == CALLED
        values = found[name].value, found[UNCHANGED].value
        words = sentence(label, name, moved.value / score.value, *values) if called else ""
        probes[name] = Probed(found[name].estimate, changes[name], verdict, words)
    return LabelProbes("" if above_chance else NO_SCORE, found[UNCHANGED].estimate, probes, views)


def lies_elsewhere(label: str) -> bool:
    """Whether a finding lies outside the lungs, by its name.

    >>> lies_elsewhere("Rib Fracture"), lies_elsewhere("Pneumonia")
    (True, False)
    """
    return any(word in label.lower() for word in ELSEWHERE)


def _moved(name: str, changes: Mapping[str, Estimate]) -> tuple[Estimate, float]:
    """The AUROC that is kept or lost, and the share of the score that matters."""
    if name == HIDDEN:
        return changes["kept"], KEEPS
    change = changes[name]
    return Estimate(-change.value, -change.high, -change.low), LOSES


def _verdict(moved: Estimate, matters: float) -> str:
    """Called out: the interval excludes zero, and the estimate is large enough to matter."""
    if math.isnan(moved.low):
        return OPEN
    if moved.low > 0 and moved.value >= matters:
        return CALLED
    return CLEAR if moved.high < matters else OPEN
