"""Names of operating points, which keys and files share."""

import re

from fluoroscope.errors import InputError

POINTS = ("youden", "sensitivity_90", "sensitivity_95", "specificity_90", "specificity_95")
NAME = re.compile(r"(sensitivity|specificity)_([1-9]\d)")


def check_point(name: str) -> str:
    """The name of an operating point.

    Raises:
        InputError: it is neither youden nor like sensitivity_90.
    """
    if name != "youden" and not NAME.fullmatch(name):
        raise InputError(
            f"there is no operating point {name!r}; use youden, or a least sensitivity or "
            "specificity in per cent, such as sensitivity_90 or specificity_95"
        )
    return name
