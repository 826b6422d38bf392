"""What the diagnostics measure against what mathematics says: every quantity, case by case.

`python -m tests.diagnostics.truth` prints the cases as a Markdown table.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple


class Truth(NamedTuple):
    """An expected number and the measured one.

    Attributes:
        formula: of the expected number.
        tolerance: how far apart the two may be.
        because: where the tolerance comes from.
    """

    formula: str
    expected: float
    measured: float
    tolerance: float
    because: str

    @property
    def holds(self) -> bool:
        return abs(self.measured - self.expected) <= self.tolerance


CASES: dict[str, Callable[[], Truth]] = {}


def cases(*arguments: Any) -> Callable[[Any], Any]:
    """Register a function that measures a `Truth`, for each value or tuple of its arguments."""

    def register(measure: Callable[..., Truth]) -> Callable[..., Truth]:
        name = measure.__name__.replace("_", " ")
        for given in arguments or [()]:
            values = given if isinstance(given, tuple) else (given,)
            told = ", ".join(map(str, values))
            CASES[f"{name}: {told}" if told else name] = partial(measure, *values)
        return measure

    return register


def standard_errors(share: float, draws: int) -> float:
    """4.5 standard errors of a share, and one draw for where it is nearly 0 or 1."""
    return 4.5 * math.sqrt(share * (1 - share) / draws) + 1 / draws


# Each registers its cases.
from tests.diagnostics.truth import (  # noqa: E402
    activations,  # noqa: F401
    backward,  # noqa: F401
    features,  # noqa: F401
    shares,  # noqa: F401
    steps,  # noqa: F401
    transmission,  # noqa: F401
)
