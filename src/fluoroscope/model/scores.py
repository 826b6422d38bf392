"""Scores over a whole split, from probabilities in [0, 1]; a target that is neither 0 nor 1 (NaN:
unknown, between: soft) is left out.

A score that its data cannot define (no known entry, an absent class) is NaN here. torchmetrics
gives 0.0 there, which drags a macro mean down.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_stat_scores,
)

SCORES = ("auroc", "auprc", "accuracy", "sensitivity", "specificity", "brier")


def choose_thresholds(probability: Tensor, target: Tensor) -> Tensor:
    """Operating point of each label [K], float64: where Youden's J = sensitivity + specificity - 1
    is largest over the known entries of `probability` and `target` [N, K].

    An image is called positive at probability >= threshold. The threshold is the midpoint between
    the lowest score called positive and the next lower one; of equal J the highest is taken. It is
    0.5 where a label lacks a class, or where no threshold beats chance (J <= 0).

    Raises:
        ValueError: shapes differ or a probability is outside [0, 1].

    Source: W. J. Youden, Index for rating diagnostic tests, Cancer 3 (1950).
    """
    return torch.tensor([_youden(p, y) for p, y in _known(probability, target)], dtype=torch.double)


def _youden(p: Tensor, y: Tensor) -> float:
    score, group = torch.unique(p, return_inverse=True)  # ascending
    tp, fp = (_count_from(group[y == c], len(score)) for c in (1, 0))
    # J x positives x negatives, in integers: rounding must not decide between equal J.
    j = tp * (y == 0).sum() - fp * (y == 1).sum()
    if not (j > 0).any():
        return 0.5
    best = int((j == j.max()).nonzero().max())  # never 0: calling all positive has J = 0
    return float(score[best - 1] + score[best]) / 2


def _count_from(group: Tensor, num_groups: int) -> Tensor:
    """Number of entries in each group or a higher one [num_groups]."""
    return torch.bincount(group, minlength=num_groups).flip(0).cumsum(0).flip(0)


def score(
    probability: Tensor, target: Tensor, thresholds: Tensor, labels: Sequence[str]
) -> dict[str, float]:
    """`auroc, auprc, accuracy, sensitivity, specificity, brier`, and each as `<score>/<label>`.

    The first are means over the labels that define them, NaN if none does. Each label counts its
    known entries only; a label is NaN in every score without a known entry, in `sensitivity` and
    `auprc` without a positive, in `specificity` without a negative, in `auroc` without either.
    torchmetrics divides its counts in float32, so `auroc` and `auprc` are good to about 1e-7.

    Args:
        probability: [N, K] in [0, 1].
        target: [N, K] of 0, 1 and NaN.
        thresholds: [K]; an image is called positive at probability >= threshold.
        labels: K names.

    Raises:
        ValueError: shapes differ, a probability is outside [0, 1], or there are not K of the rest.
    """
    rows = [
        _score_label(p, y, float(threshold))
        for (p, y), threshold in zip(_known(probability, target), thresholds, strict=True)
    ]
    scores = {name: _mean([row[name] for row in rows]) for name in SCORES}
    for label, row in zip(labels, rows, strict=True):
        scores.update({f"{name}/{label}": row[name] for name in SCORES})
    return scores


def _score_label(p: Tensor, y: Tensor, threshold: float) -> dict[str, float]:
    # Called here, not by torchmetrics, whose comparison is strict: a score on the threshold counts.
    called = (p >= threshold).long()
    tp, fp, tn, fn, _ = (int(n) for n in binary_stat_scores(called, y)) if len(y) else (0,) * 5
    has_positive, has_negative = tp + fn > 0, tn + fp > 0
    return {
        "auroc": float(binary_auroc(p, y)) if has_positive and has_negative else math.nan,
        "auprc": float(binary_average_precision(p, y)) if has_positive else math.nan,
        "accuracy": _ratio(tp + tn, len(y)),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "brier": float((p - y).square().mean()),  # the mean of nothing is NaN
    }


def auroc_interval(
    probability: Tensor,
    target: Tensor,
    patients: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the macro AUROC, resampling patients with their images.

    Images of one patient resemble each other: drawing images one by one would make the interval too
    narrow. A resample in which a label lacks a class leaves that label out of its mean; (NaN, NaN)
    where no label has both classes. 25,000 images x 14 labels x 1000 resamples take seconds and
    about 50 MiB on one core.

    Args:
        probability: [N, K] in [0, 1].
        target: [N, K] of 0, 1 and NaN.
        patients: N identifiers of any sortable kind.
        resamples: number of bootstrap draws.
        level: coverage in (0, 1).
        seed: the same seed gives the same interval.

    Raises:
        ValueError: shapes differ, a probability is outside [0, 1], or there are not N patients.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; patients
        as the unit: C. A. Field, A. H. Welsh, J. R. Stat. Soc. B 69 (2007).
    """
    ranks = [rank for rank in _ranks(probability, target) if rank.has_both]
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    if patient.shape != (len(target),):
        raise ValueError(f"{len(target)} images need as many patients; got {patient.shape}")
    if not ranks:
        return math.nan, math.nan
    means = [
        _nanmean(np.stack([rank.auroc(weight) for rank in ranks]))
        for weight in _draws(patient, resamples, seed)
    ]
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class _Rank:
    """A label's known images in the order of their scores, sorted once for all resamples.

    `positive` and `negative` are image indices, `negative` by ascending score; `below` and
    `up_to` count the negatives whose score is < and <= each positive's.
    """

    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    below: NDArray[np.intp]
    up_to: NDArray[np.intp]

    @property
    def has_both(self) -> bool:
        return len(self.positive) > 0 and len(self.negative) > 0

    def auroc(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """AUROC [R] under the image weights [N, R] of R resamples; NaN where a class has none.

        The weighted share of (positive, negative) pairs in the right order, a tie counting half.
        """
        w_positive = weight[self.positive]
        total = np.zeros((len(self.negative) + 1, weight.shape[1]))
        np.cumsum(weight[self.negative], axis=0, out=total[1:])
        beaten = (total[self.below] + total[self.up_to]) / 2
        pairs = w_positive.sum(0) * total[-1]
        won = np.einsum("pr,pr->r", w_positive, beaten)
        return np.divide(won, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


def _ranks(probability: Tensor, target: Tensor) -> Iterator[_Rank]:
    p_all, y_all = _as_numbers(probability, target)
    for p, y in zip(p_all.numpy().T, y_all.numpy().T, strict=True):
        positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        negative = negative[np.argsort(p[negative], kind="stable")]
        below, up_to = (np.searchsorted(p[negative], p[positive], s) for s in ("left", "right"))
        yield _Rank(positive, negative, below, up_to)


def _draws(
    patient: NDArray[np.intp], resamples: int, seed: int, chunk: int = 32
) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn, [N, up to `chunk` resamples] at a time to bound the memory."""
    rng = np.random.default_rng(seed)
    num_patients = int(patient.max()) + 1
    for start in range(0, resamples, chunk):
        counts = [
            np.bincount(rng.integers(num_patients, size=num_patients), minlength=num_patients)
            for _ in range(min(chunk, resamples - start))
        ]
        yield np.stack(counts, axis=1).astype(np.float64)[patient]


def _as_numbers(probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both [N, K] in float64 on the CPU, checked."""
    if probability.ndim != 2 or probability.shape != target.shape:
        raise ValueError(
            f"scores need [N, K] twice; got {list(probability.shape)} and {list(target.shape)}"
        )
    p, y = (x.detach().cpu().double() for x in (probability, target))
    # torchmetrics would take anything outside [0, 1] for logits.
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("scores need probabilities in [0, 1]")
    return p, y


def _known(probability: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each label's known entries: probabilities float64 [n] and targets int64 [n]."""
    for p, y in zip(*(x.unbind(1) for x in _as_numbers(probability, target)), strict=True):
        known = (y == 0) | (y == 1)
        yield p[known], y[known].long()


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the labels [K, R] -> [R] that a resample defines; NaN (no warning) if none."""
    defined = (~np.isnan(values)).sum(0)
    total = np.nansum(values, axis=0)
    return np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0)
