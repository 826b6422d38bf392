"""How a number of the comparison is written for people."""

import math
from collections.abc import Callable
from typing import Any

UNKNOWN = "n/a"
FINDINGS = ("better", "worse")  # against the reference, beyond chance

Cell = Callable[[Any], str]


def number(value: float, form: str = ".3f") -> str:
    """With a true minus; `n/a` for NaN.

    >>> number(-0.0042, "+.3f")
    '−0.004'
    """
    return UNKNOWN if math.isnan(value) else format(value, form).replace("-", "−")


def span(low: float, high: float, form: str = ".3f") -> str:
    """An interval."""
    return UNKNOWN if math.isnan(low) else f"{number(low, form)} to {number(high, form)}"


def p_value(value: float) -> str:
    """Never zero.

    >>> p_value(0.0004), p_value(0.0312)
    ('<0.001', '0.031')
    """
    return "<0.001" if value < 0.001 else number(value, ".3f")


def share_of(name: str) -> Cell:
    return lambda row: number(row[name], ".1%")


def value_of(name: str, form: str) -> Cell:
    return lambda row: number(row[name], form)


def against(cell: Cell) -> Cell:
    """Of what is compared with the reference, which is not compared with itself."""
    return lambda row: "–" if row["finding"] == "reference" else cell(row)
