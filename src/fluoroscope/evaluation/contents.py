"""The content of `evaluation.json`: its shape, in one place for those who write and read it.

A number that was not measured is NaN here and null in the file. Infinity (a likelihood ratio
without false positives) is null in the file too.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fluoroscope.run.run_folder import finite

VERSION = 1
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number and its 95 % interval over patients; `{"value": .., "low": .., "high": ..}`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`0.912 (0.874 to 0.941)`."""
        if math.isnan(self.value):
            return "n/a"
        bounds = (self.low, self.high)
        told = "" if math.isnan(self.low) else " ({:.3f} to {:.3f})".format(*bounds)
        return f"{self.value:.3f}{told}"


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class AtPrevalence:
    """Values that an operating point would have at another prevalence, given in `prevalence`.

    Attributes:
        net_benefit: per image, in true positives; see `Point`.
    """

    prevalence: float
    ppv: Estimate
    npv: Estimate
    net_benefit: Estimate


@dataclass(frozen=True)
class Point:
    """The decisions of one label at one threshold; an image is positive at probability >= it.

    Attributes:
        threshold: on the calibrated probability; it was fixed on validation.
        raw_threshold: the same threshold on the probability before calibration.
        tp, fp, fn, tn: images; the interval holds for as many other patients.
        lr_positive, lr_negative: likelihood ratios.
        net_benefit: tp / N - fp / N * threshold / (1 - threshold), at the prevalence of the images.
        at_prevalence: None if no `prevalence` was given.
    """

    threshold: float
    raw_threshold: float
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    f1: Estimate
    lr_positive: Estimate
    lr_negative: Estimate
    tp: Estimate
    fp: Estimate
    fn: Estimate
    tn: Estimate
    net_benefit: Estimate
    at_prevalence: AtPrevalence | None = None


@dataclass(frozen=True)
class Bin:
    """The images whose probability lies in [low, high), or in [low, high] if high is 1.

    Attributes:
        predicted: mean probability; NaN without images.
        observed: share of positive images, with its interval.
    """

    low: float
    high: float
    images: int
    predicted: float
    observed: Estimate


@dataclass(frozen=True)
class Quality:
    """How good probabilities are as such.

    Attributes:
        ece: mean distance of predicted and observed over the bins, weighted by their images.
        log_loss: in nats.
        reliability: the bins; those without images too.
    """

    brier: Estimate
    ece: Estimate
    log_loss: Estimate
    reliability: list[Bin]


@dataclass(frozen=True)
class BenefitAt:
    """One point of the decision curve.

    Attributes:
        threshold: on the calibrated probability.
        net_benefit: of the model, at the prevalence of the images, or the given one; its
            probabilities stay as they are.
        all: net benefit of calling every image positive; that of calling none is 0.
    """

    threshold: float
    net_benefit: Estimate
    all: float


@dataclass(frozen=True)
class CalibrationUsed:
    """What was fitted on validation for one label; of the images and positives there.

    Attributes:
        temperature: by which the logits are divided; 1 without an interval for an ensemble, whose
            probabilities are not calibrated again.
        slope, intercept: of the logits (Platt).
    """

    temperature: Estimate
    slope: Estimate
    intercept: Estimate
    images: int
    positives: int


@dataclass(frozen=True)
class LabelScores:
    """The scores of one label. Those of a label that is not judged are NaN, and lists are empty.

    Attributes:
        judged: false if there are fewer than 10 positive or negative images, or patients of them.
        why_not: the sentence that says so; empty if it is judged.
        images, positives: of known truth.
        patients, positive_patients, negative_patients: None if patients are unknown.
        prevalence: share of positive images.
        brier, ece, log_loss: of the calibrated probability, or of the raw one if there is no
            calibration.
        calibration: None if there is none.
        before: quality before calibration.
        after: quality after it; None if there is no calibration.
        points: by name; empty without calibration.
        decision_curve: by rising threshold.
        own: the key `scores`, by name.
    """

    judged: bool
    why_not: str
    images: int
    positives: int
    negatives: int
    patients: int | None
    positive_patients: int | None
    negative_patients: int | None
    prevalence: Estimate = UNKNOWN
    auroc: Estimate = UNKNOWN
    auprc: Estimate = UNKNOWN
    brier: Estimate = UNKNOWN
    ece: Estimate = UNKNOWN
    log_loss: Estimate = UNKNOWN
    calibration: CalibrationUsed | None = None
    before: Quality | None = None
    after: Quality | None = None
    points: dict[str, Point] = field(default_factory=dict)
    decision_curve: list[BenefitAt] = field(default_factory=list)
    own: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class MacroPoint:
    """Means over the judged labels at one operating point, each label at its own threshold."""

    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    f1: Estimate


@dataclass(frozen=True)
class Macro:
    """Means over the judged labels.

    Attributes:
        labels: number of judged labels; with 0 all scores are NaN.
        brier_before, ece_before, log_loss_before: before calibration.
        own: the key `scores`, by name.
    """

    labels: int
    auroc: Estimate = UNKNOWN
    auprc: Estimate = UNKNOWN
    brier: Estimate = UNKNOWN
    ece: Estimate = UNKNOWN
    log_loss: Estimate = UNKNOWN
    brier_before: Estimate = UNKNOWN
    ece_before: Estimate = UNKNOWN
    log_loss_before: Estimate = UNKNOWN
    points: dict[str, MacroPoint] = field(default_factory=dict)
    own: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The content of `evaluation.json`.

    Attributes:
        fingerprint: of the weights; of an ensemble those of the first model.
        source: name of the collection.
        split: val, test or all.
        split_fingerprint: of the studies.
        images, patients: that were scored; patients is None if they are unknown.
        patients_known: of "all" images, of "some" or of "none"; else the intervals are too narrow.
        patients_compared: whether all patients were compared with those of the training.
        calibrated: where the calibration comes from, in words; empty if there is none.
        prevalence: as given; None if it was not.
        notes: limits of the numbers, one sentence each, without full stops.
        labels: by name.
        subgroups, against, collection, probes, ensemble: other parts of the evaluation; None if
            they were not asked for.
    """

    fingerprint: str
    source: str
    split: str
    split_fingerprint: str
    images: int
    patients: int | None
    patients_known: str
    patients_compared: bool
    calibrated: str
    prevalence: float | None
    notes: list[str]
    labels: dict[str, LabelScores]
    macro: Macro
    subgroups: Any = None
    against: Any = None
    collection: Any = None
    probes: Any = None
    ensemble: Any = None
    version: int = VERSION
    level: float = LEVEL


def as_json(value: Any) -> Any:
    """An evaluation or a part of it as plain dicts, lists and values; NaN becomes None."""
    return finite(_plain(value))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        parts = dataclasses.fields(value)
        return {part.name: _plain(getattr(value, part.name)) for part in parts}
    if isinstance(value, Estimate):
        return value._asdict()
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def estimates(value: Any, place: str = "") -> Iterator[tuple[str, Estimate]]:
    """All estimates within a part of an evaluation and their dotted places.

    >>> list(estimates(Macro(0)))[0][0]
    'auroc'
    """
    if isinstance(value, Estimate):
        yield place, value
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from estimates(getattr(value, part.name), f"{place}.{part.name}".strip("."))
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from estimates(part, f"{place}.{name}".strip("."))
