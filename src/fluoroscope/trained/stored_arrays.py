"""Arrays as text in a JSON file: a list of so many numbers would take thousands of lines."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def to_text(array: Array, kind: type) -> str:
    """The numbers as base64, little-endian.

    Args:
        kind: of numbers that are stored, such as `np.float16`.
    """
    return base64.b64encode(np.ascontiguousarray(array, f"<{np.dtype(kind).str[1:]}").data).decode()


def from_text(text: str, kind: type) -> Array:
    """The numbers of `to_text`, flat, float64.

    Raises:
        ValueError: the text is damaged, or a number is not finite.
    """
    array = np.frombuffer(base64.b64decode(text), f"<{np.dtype(kind).str[1:]}").astype(float)
    if not np.isfinite(array).all():
        raise ValueError("statistics are finite")
    return array
