"""Images called positive or not, by truth and patient, at several thresholds.

Arrays: N images, G patients, B draws, T thresholds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoroscope.evaluation.resampling import Patients
from fluoroscope.statistics import Floats


class Counts(NamedTuple):
    """Images at each threshold: of each patient [G, T], or in each draw [B, T]."""

    tp: Floats
    fp: Floats
    fn: Floats
    tn: Floats

    @property
    def images(self) -> Floats:
        return self.tp + self.fp + self.fn + self.tn


def count(
    probability: ArrayLike,
    truth: ArrayLike,
    thresholds: Sequence[float],
    rows: NDArray[np.bool_],
    patients: Patients,
) -> Counts:
    """Count the images of each patient, which are called positive at probability >= threshold.

    Args:
        probability, truth: [n], of the images with a known label.
        thresholds: T, in any order.
        rows: [N], which images these are.
    """
    cuts, y = np.asarray(thresholds, float), np.asarray(truth, float)
    rising = np.argsort(cuts, kind="stable")
    reached = np.searchsorted(cuts[rising], np.asarray(probability, float), "right")
    counts = []
    for weight in (y, 1 - y):
        cells = patients.cells(rows, reached.astype(np.int64), len(cuts) + 1, weight)
        above = cells[:, ::-1].cumsum(1)[:, ::-1]  # [G, T + 1]; the first column counts all
        called = np.empty((patients.count, len(cuts)))
        called[:, rising] = above[:, 1:]
        counts += [called, above[:, :1] - called]
    tp, fn, fp, tn = counts
    return Counts(tp, fp, fn, tn)
