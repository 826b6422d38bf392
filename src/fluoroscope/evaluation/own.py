"""Scores of the user's own, with their intervals over patients.

Arrays: N images, n of them with a known label.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fluoroscope.console import show_progress
from fluoroscope.evaluation.contents import Estimate
from fluoroscope.evaluation.intervals import by_percentiles
from fluoroscope.evaluation.resampling import Patients
from fluoroscope.statistics import Floats

DRAWS = 500  # one call of the function each


def draw_own(
    scores: Mapping[str, Callable[..., float]],
    probability: Floats,
    truth: Floats,
    threshold: float,
    rows: NDArray[np.bool_],
    patients: Patients,
) -> tuple[dict[str, Estimate], dict[str, Floats]]:
    """The value of each score on n images, and its values in the first `DRAWS` draws.

    The interval holds for a score that is about a mean of many images; draws in which it is not
    defined do not count.

    Args:
        probability, truth: [n].
        threshold: see `own_scores.OwnScore`.
        rows: [N], the images with a known label.
    """
    number, estimates, drawn = patients.number[rows], {}, {}
    for name, function in scores.items():
        draws = show_progress(patients.drawn[:DRAWS], f"interval of {name}", DRAWS)
        drawn[name] = np.array(
            [
                function(np.repeat(probability, times), np.repeat(truth, times), threshold)
                for times in (draw[number] for draw in draws)
            ]
        )
        estimates[name] = by_percentiles(function(probability, truth, threshold), drawn[name])
    return estimates, drawn
