"""Shares as people read them."""

import math


def share(value: float) -> str:
    """A share in percent; one that is not exactly 0 or 1 never reads so.

    >>> share(0.0), share(0.0004), share(0.5), share(0.9999)
    ('0 %', '<0.1 %', '50.0 %', '>99.9 %')
    """
    if math.isnan(value):
        return "n/a"
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    return "<0.1 %" if value < 0.001 else ">99.9 %" if value > 0.999 else f"{100 * value:.1f} %"
