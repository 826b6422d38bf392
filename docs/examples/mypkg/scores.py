"""Scores of your own: functions of the images of one label whose truth is known."""

import numpy as np


def f2(probability: np.ndarray, target: np.ndarray, threshold: float) -> float:
    """F2: a missed finding weighs four times as much as a false alarm.

    Args:
        probability: [n] in [0, 1].
        target: [n] of 0 and 1; both are there.
        threshold: an image is called positive at probability >= threshold.
    """
    called, present = probability >= threshold, target == 1
    hits = np.sum(called & present)
    return 5 * hits / (np.sum(called) + 4 * np.sum(present))
