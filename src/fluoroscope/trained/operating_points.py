"""Operating points: the thresholds at which a score becomes a decision.

An image is called positive at score >= threshold. A threshold is the midpoint between two scores
that occur, so that it does not depend on rounding. Arrays: N images.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoroscope.config.point_names import NAME, POINTS, check_point  # noqa: F401
from fluoroscope.statistics import Floats

Ints = NDArray[np.int64]


def choose_point(name: str, score: ArrayLike, truth: ArrayLike) -> float:
    """The threshold of an operating point; NaN if there is none.

    That is so if a class is missing, and for Youden's index if no threshold is better than chance.
    If only calling all images positive gives the sensitivity, the threshold is minus infinity; if
    only calling none gives the specificity, it is infinity.

    Args:
        name: `youden` (the largest sensitivity + specificity; of several, the highest threshold),
            `sensitivity_NN` (the highest threshold with at least NN per cent), or
            `specificity_NN` (the lowest).
        score: [N], of any scale.
        truth: [N]; only 1 and 0 count.

    Source: W. J. Youden, Index for rating diagnostic tests, Cancer 3 (1950).
    """
    check_point(name)
    score, truth = np.asarray(score, dtype=float), np.asarray(truth, dtype=float)
    positive, negative = score[truth == 1], score[truth == 0]
    if not len(positive) or not len(negative):
        return math.nan
    cuts, hits, passed = _cuts(positive, negative)
    if name == "youden":
        gain = hits * len(negative) + passed * len(positive)  # integers: rounding decides nothing
        best = np.flatnonzero(gain == gain.max())[-1]
        # Calling none positive has the index 0, as has calling all.
        return float(cuts[best]) if gain[best] > gain[-1] else math.nan
    kind, percent = NAME.fullmatch(name).groups()  # type: ignore[union-attr]
    if kind == "sensitivity":
        enough = 100 * hits >= int(percent) * len(positive)
        return float(cuts[np.flatnonzero(enough)[-1]])
    enough = 100 * passed >= int(percent) * len(negative)
    return float(cuts[np.flatnonzero(enough)[0]])


def _cuts(positive: Floats, negative: Floats) -> tuple[Floats, Ints, Ints]:
    """All thresholds that differ, ascending, from "all" to "none", with what each gives.

    Returns:
        Thresholds, the positives called positive, and the negatives called negative.
    """
    known = np.unique(np.concatenate([positive, negative]))
    cuts = np.concatenate([[-np.inf], (known[:-1] + known[1:]) / 2, [np.inf]])
    hits = (len(positive) - np.searchsorted(np.sort(positive), cuts, "left")).astype(np.int64)
    passed = np.searchsorted(np.sort(negative), cuts, "left").astype(np.int64)
    return cuts, hits, passed
