"""Scores over a whole split, from probabilities in [0, 1].

Targets other than 0 and 1 are left out: NaN is unknown, a value between is soft. A score that is
undefined (no known entry, an absent class) is NaN; torchmetrics returns 0.0, which lowers a mean.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_stat_scores,
)
from torchmetrics.utilities import dim_zero_cat

SCORES = ("auroc", "auprc", "accuracy", "sensitivity", "specificity", "brier")


def choose_thresholds(probability: Tensor, target: Tensor) -> Tensor:
    """Operating point of each label [K], float64, by Youden's J = sensitivity + specificity - 1.

    An image is called positive at probability >= threshold. The threshold maximises J over the
    known entries of `probability` and `target` [N, K]. It is the midpoint between the lowest score
    called positive and the next lower score; of several maxima, the highest. It is 0.5 if a label
    lacks a class, or if no threshold is better than chance (J <= 0).

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
    probability: Tensor,
    target: Tensor,
    thresholds: Tensor,
    labels: Sequence[str],
    own: Mapping[str, Callable[..., float]] = MappingProxyType({}),
) -> dict[str, float]:
    """`auroc, auprc, accuracy, sensitivity, specificity, brier`, and each as `<score>/<label>`.

    The first six are means over the labels with a defined score, or NaN. Each label uses only its
    known entries. Without known entries all its scores are NaN; without positives `sensitivity`,
    `auprc` and `auroc` are NaN, without negatives `specificity` and `auroc`. torchmetrics divides
    its counts in float32, so `auroc` and `auprc` are accurate to about 1e-7.

    Args:
        probability: [N, K] in [0, 1].
        target: [N, K] of 0, 1 and NaN.
        thresholds: [K]; an image is called positive at probability >= threshold.
        labels: K names.
        own: further scores of one label by name, see `own_scores.OwnScore`.

    Raises:
        ValueError: shapes differ, or a probability is outside [0, 1].
    """
    rows = [
        _score_label(p, y, float(threshold))
        | {name: function(p, y, float(threshold)) for name, function in own.items()}
        for (p, y), threshold in zip(_known(probability, target), thresholds, strict=True)
    ]
    scores = {name: _mean([row[name] for row in rows]) for name in (*SCORES, *own)}
    for label, row in zip(labels, rows, strict=True):
        scores.update({f"{name}/{label}": value for name, value in row.items()})
    return scores


def _score_label(p: Tensor, y: Tensor, threshold: float) -> dict[str, float]:
    # torchmetrics' comparison is strict; here a score equal to the threshold is positive.
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


def _as_numbers(probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check both, and convert them to float64 on the CPU."""
    if probability.ndim != 2 or probability.shape != target.shape:
        raise ValueError(
            "probability and target must have the same shape [N, K]; "
            f"got {list(probability.shape)} and {list(target.shape)}"
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


class Predictions(NamedTuple):
    """Predictions for a whole split in the order of the study table, equal on every process."""

    rows: Tensor  # [N] of the study table
    logits: Tensor  # [N, K] float32
    target: Tensor  # [N, K] NaN where unknown

    @property
    def probability(self) -> Tensor:
        """[N, K] float64, as exact above 0.5 as float32 is below it, so that 1 - 1e-9 is not 1."""
        rarer = (-self.logits.abs()).sigmoid().double()
        return rarer.where(self.logits < 0, 1 - rarer)


class GatheredPredictions(Metric):
    """Collect the predictions for a split over batches and processes."""

    full_state_update = False
    index: list[Tensor]
    logits: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("index", "logits", "target"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, logits: Tensor, target: Tensor) -> None:
        self.index.append(index)
        self.logits.append(logits.detach().float())
        self.target.append(target)

    def compute(self) -> Predictions:
        index = dim_zero_cat(self.index)
        order = index.argsort()
        logits, target = dim_zero_cat(self.logits), dim_zero_cat(self.target)
        return Predictions(index[order].cpu(), logits[order].cpu(), target[order].cpu())
