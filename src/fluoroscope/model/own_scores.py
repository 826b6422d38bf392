"""Scores of the user's own: functions that import paths name."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fluoroscope.errors import InputError, first_sentence
from fluoroscope.model.score_names import KEY, name_of
from fluoroscope.own_code import imported

EXAMPLE = ([0.1, 0.9, 0.6, 0.4], [0, 1, 0, 1], 0.5)


class OwnScore:
    """A score of one label, from a function `(probability, target, threshold)` to a number.

    Raises:
        InputError: as `own_code.imported`, or it is no function that gives a number.
    """

    def __init__(self, path: str) -> None:
        self.path, self.function = path, imported(KEY, path)
        if isinstance(self.function, type) or not callable(self.function):
            raise InputError(
                f"{KEY}: {path} must be a function of (probability, target, threshold) that "
                f"returns a number; it is {_kind(self.function)}"
            )
        self(*EXAMPLE)  # to refuse before data are read

    def __call__(self, probability: ArrayLike, target: ArrayLike, threshold: float) -> float:
        """The value for n images of known truth; NaN unless both classes are among them.

        Args:
            probability: [n] in [0, 1].
            target: [n] of 0 and 1.
            threshold: an image is called positive at probability >= threshold.

        Raises:
            InputError: the function fails, or returns something else than a number.
        """
        p, y = np.array(probability, np.float64), np.array(target, np.int64)
        if len({*y.tolist()}) < 2:
            return math.nan
        try:
            value = self.function(p, y, threshold)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {first_sentence(error)}"
            raise InputError(f"{KEY}: {self.path} fails ({reason}); correct it") from None
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"{KEY}: {self.path} must return a number; it returned an object of type "
                f"{type(value).__name__}"
            ) from None


def own_scores(paths: Sequence[str]) -> dict[str, OwnScore]:
    """The scores by name, which is the last part of the path.

    Raises:
        InputError: as `OwnScore`.
    """
    return {name_of(path): OwnScore(path) for path in paths}


def _kind(found: object) -> str:
    return "a class" if isinstance(found, type) else f"an object of type {type(found).__name__}"
