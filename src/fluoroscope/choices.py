"""The words that configuration keys accept where Python code checks them too.

Each set is declared here and nowhere else. The module imports nothing heavy, so that a misspelt
word is refused before PyTorch is imported. A data source declares its own words in its module.
"""

import math
import re
from typing import Any

from fluoroscope.errors import InputError, nearest

NORMS = ("batch", "layer", "none")
ORDERS = ("activation-norm", "norm-activation")
INITS = ("keras", "torch", "he")
LOSSES = ("bce", "focal")
WEIGHTS = ("hub", "file", "package", "none")
SAMPLERS = ("shuffle", "balanced")
FEATURES = ("live", "cached")
ON_MISSING = ("stop", "skip")
ON_UNREADABLE = ("stop", "skip")
ON_DUPLICATE = ("stop", "drop", "keep")
UNCERTAIN = ("zeros", "ones", "ignore", "soft")
BLANK = ("zero", "ignore")


def check_bias_init(key: str, value: Any) -> None:
    """Of `head.bias_init`; YAML can bring `true`, `nan` or a word.

    Raises:
        InputError: anything but a finite number, None or `centered`.
    """
    if value not in (None, "centered") and not (_is_number(value) and math.isfinite(value)):
        raise InputError(
            f"{key} must be a finite number, null or centered; "
            f"got {value!r}{nearest(value, ['centered'])}"
        )


def check_pos_weight(key: str, value: Any) -> None:
    """Of `loss.pos_weight`.

    Raises:
        InputError: anything but a finite number above 0, None or `auto`.
    """
    positive = _is_number(value) and math.isfinite(value) and value > 0
    if value not in (None, "auto") and not positive:
        raise InputError(f"{key} must be auto, null or a number above 0; got {value!r}")


def parse_fold(key: str, fold: str) -> tuple[int, int]:
    """K and n of `data.fold`.

    Raises:
        InputError: anything but `k/n` with k from 1 to n.

    >>> parse_fold("data.fold", "2/5")
    (2, 5)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", str(fold).strip())
    k, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (n >= 2 and 1 <= k <= n):
        raise InputError(f"{key} must be k/n with k from 1 to n, such as 2/5; got {fold!r}")
    return k, n


def check_fold(key: str, value: str | None) -> None:
    """As `parse_fold`; None means no folds."""
    if value is not None:
        parse_fold(key, value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
