"""AUROC, and AUPRC: the mean precision over the positive images, each at its own score.

Arrays: N images, P of them positive, B draws.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fluoroscope.evaluation.contents import UNKNOWN, Estimate
from fluoroscope.evaluation.intervals import by_logit
from fluoroscope.evaluation.resampling import Ints, Patients
from fluoroscope.statistics import Floats, auroc_interval, macro_auroc


class Ranking:
    """Images by falling score. Equal scores are one step, as in scikit-learn.

    Attributes:
        order: [N], the images by falling score.
        truth: bool [N], in this order.
        steps: [P], for each positive image the last place with its score.
        hits: [P], the number of positive images down to there, less one.
    """

    def __init__(self, score: ArrayLike, truth: ArrayLike) -> None:
        falling = -np.asarray(score, float)
        self.order: Ints = np.argsort(falling, kind="stable")
        ordered = falling[self.order]
        self.truth: NDArray[np.bool_] = np.asarray(truth)[self.order] == 1
        self.steps: Ints = np.searchsorted(ordered, ordered[self.truth], "right") - 1
        self.hits: Ints = np.cumsum(self.truth)[self.steps] - 1

    def auprc(self, weight: NDArray[np.float32]) -> Floats:
        """AUPRC [b] with image weights [b, N] in this order; NaN without positive images."""
        positive = weight[:, self.truth]
        called = np.cumsum(weight, axis=1)[:, self.steps]
        right = np.cumsum(positive, axis=1)[:, self.hits]
        with np.errstate(invalid="ignore"):
            precision = np.where(called > 0, right / called, 0)
            return (positive * precision).sum(1, dtype=float) / positive.sum(1, dtype=float)


def auprc(
    score: ArrayLike, truth: ArrayLike, number: Ints, patients: Patients
) -> tuple[Estimate, Floats]:
    """The AUPRC and its values in the draws [B].

    Args:
        score, truth: [N], of images with a known label.
        number: [N], of their patients.

    Source: average precision: M. Zhu, Recall, precision and average precision (2004); interval: K.
        Boyd, K. H. Eng, C. D. Page, Area under the precision-recall curve, ECML PKDD (2013).
    """
    ranking = Ranking(score, truth)
    if not ranking.truth.any():
        return UNKNOWN, np.full(len(patients.drawn), math.nan)
    value = float(ranking.auprc(np.ones((1, len(ranking.order)), np.float32))[0])
    numbers = number[ranking.order]
    draws = np.concatenate([ranking.auprc(block[:, numbers]) for block in patients.blocks()])
    fewest = min(len(np.unique(numbers[ranking.truth == kind])) for kind in (True, False))
    return by_logit(value, draws, max(fewest, 1), patients.count), draws


def auroc(table: pd.DataFrame, labels: Sequence[str]) -> Estimate:
    """The mean AUROC over labels with the interval that runs and reports give.

    Args:
        table: predictions, as `predictions/test.csv`.
    """
    return Estimate(macro_auroc(table, labels)[0], *auroc_interval(table, labels))
