"""The words and numbers that configuration keys accept where Python code checks them too.

Each is declared here and nowhere else. The module imports nothing heavy, so that a wrong value is
refused before PyTorch is imported. A data source declares its own words and numbers in its module.
"""

import math
import re
from numbers import Real
from typing import Any, NamedTuple

from fluoroscope.errors import InputError, nearest, shown


class Range(NamedTuple):
    """Finite numbers between two ends, written as in interval notation."""

    low: float
    high: float = math.inf
    ends: str = "[]"

    def check(self, key: str, value: Any) -> None:
        """Raise InputError, as in `head.dropout must be in [0, 1); got 1.5`."""
        if is_number(value) and math.isfinite(value):
            above = value >= self.low if self.ends[0] == "[" else value > self.low
            if above and (value <= self.high if self.ends[1] == "]" else value < self.high):
                return
        raise InputError(f"{key} must be {self._wanted(value)}; got {shown(value)}")

    def _wanted(self, value: Any) -> str:
        if self.low == -math.inf or value == self.high == math.inf:
            return "a finite number"
        if self.high == math.inf:
            return f"{'at least' if self.ends[0] == '[' else 'a number above'} {self.low}"
        return f"in {self.ends[0]}{self.low}, {self.high}{self.ends[1]}"


FINITE, POSITIVE, NOT_NEGATIVE = Range(-math.inf), Range(0, ends="(]"), Range(0)
COUNT, SHARE = Range(1), Range(0, 1)
SEED = Range(0, 2**32 - 1)  # of numpy's legacy generator
PROPER_SHARE = Range(0, 1, "()")  # neither nothing nor all
DROPOUT = LABEL_SMOOTHING = Range(0, 1, "[)")
NORM_MOMENTUM = Range(0, 1, "(]")
IMAGE_PX = Range(32)

NORMS = ("batch", "layer", "none")
ORDERS = ("activation-norm", "norm-activation")
INITS = ("keras", "torch", "he")
LOSSES = ("bce", "focal")
ADAMW = "adamw"  # the default among timm's optimizers
COSINE = "cosine"
SCHEDULES = (COSINE, "constant", "one_cycle", "step")
PACKAGED = "tf_efficientnet_lite0"  # whose weights come in a Python package
WEIGHTS = ("hub", "file", "package", "none")
SAMPLERS = ("shuffle", "balanced")
FEATURES = ("live", "cached")
ON_MISSING = ("stop", "skip")
ON_UNREADABLE = ("stop", "skip")
ON_DUPLICATE = ("stop", "drop", "keep")
PROFILERS = ("simple", "advanced", "pytorch")
UNCERTAIN = ("zeros", "ones", "ignore", "soft")
BLANK = ("zero", "ignore")


def check_bias_init(key: str, value: Any) -> None:
    """Check `head.bias_init`, which YAML may turn into `true`, `nan` or a word.

    Raises:
        InputError: if it is not a finite number, None or `centered`.
    """
    if value not in (None, "centered") and not (is_number(value) and math.isfinite(value)):
        raise InputError(
            f"{key} must be a finite number, null or centered; "
            f"got {shown(value)}{nearest(value, ['centered'])}"
        )


def check_norm_momentum(key: str, value: Any) -> None:
    """Check `head.norm_momentum`.

    Raises:
        InputError: if it is not a number in (0, 1] or `auto`.
    """
    if value != "auto":
        if not is_number(value):
            raise InputError(f"{key} must be auto or a number in (0, 1]; got {shown(value)}")
        NORM_MOMENTUM.check(key, value)


def check_pos_weight(key: str, value: Any) -> None:
    """Check `loss.pos_weight`.

    Raises:
        InputError: if it is not a finite number above 0, None or `auto`.
    """
    positive = is_number(value) and math.isfinite(value) and value > 0
    if value not in (None, "auto") and not positive:
        raise InputError(f"{key} must be auto, null or a number above 0; got {shown(value)}")


def check_focal_gamma(key: str, value: Any) -> None:
    """Check `loss.focal_gamma`: in (0, 1) the gradient at a saturated p_t = 1 is NaN.

    Raises:
        InputError: if it is not 0 or a finite number of at least 1.
    """
    if not is_number(value) or not (value == 0 or 1 <= value < math.inf):
        raise InputError(f"{key} must be 0 or at least 1; got {shown(value)}")


def check_weights(weights: str, file: Any, architecture: str) -> None:
    """Check `backbone.weights` with the keys that belong to it.

    Raises:
        InputError: `file` without a file, or `package` for a network that no package has.
    """
    if weights == "file" and not file:
        raise InputError("backbone.weights=file needs backbone.file=PATH (.safetensors or .pth)")
    if weights == "package" and architecture != PACKAGED:
        raise InputError(
            f"backbone.weights=package exists only for backbone.name={PACKAGED}; "
            f"for {architecture} use hub, file or none"
        )


def parse_fold(key: str, fold: str) -> tuple[int, int]:
    """K and n of `data.fold`.

    Raises:
        InputError: if it is not `k/n` with n of at least 2 and k from 1 to n.

    >>> parse_fold("data.fold", "2/5")
    (2, 5)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", str(fold).strip())
    k, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (n >= 2 and 1 <= k <= n):
        raise InputError(f"{key} must be k/n with k from 1 to n, such as 2/5; got {fold!r}")
    return k, n


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
