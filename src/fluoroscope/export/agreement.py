"""Whether an exported file gives the checkpoint's probabilities."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fluoroscope.trained.calibration import logit

PROBABILITY = 1e-4  # the largest difference allowed
# A threshold for a rare finding may be 0.0003, of which 1e-4 is a third; so the log-odds must agree
# too, as far as the resolution of float32 near 1 lets them be compared.
LOG_ODDS, EDGE = 0.02, 1e-5


class Agreement(NamedTuple):
    """Largest differences between two sets of probabilities; NaN if one of them is not a number.

    Attributes:
        images: number of images.
        probability: of the probabilities.
        log_odds: of the log-odds, where the expected probability is in [1e-5, 1 - 1e-5].
    """

    images: int
    probability: float
    log_odds: float

    @property
    def holds(self) -> bool:
        return self.probability <= PROBABILITY and self.log_odds <= LOG_ODDS


def compare(expected: ArrayLike, found: ArrayLike) -> Agreement:
    """Compare probabilities [N, K].

    >>> compare([[0.5], [0.25]], [[0.5], [0.26]]).holds
    False
    """
    expected, found = np.asarray(expected, dtype=float), np.asarray(found, dtype=float)
    difference = np.abs(expected - found)
    inside = (expected >= EDGE) & (expected <= 1 - EDGE)
    of_odds = np.where(inside, np.abs(logit(expected) - logit(found)), 0.0)
    return Agreement(len(expected), float(difference.max()), float(of_odds.max()))
