"""What a user did that cannot work, in one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input from the user: the message says what, where and what to do.

    Commands print it alone and exit with code 2; everything else is a bug and keeps its traceback.
    """


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value that is not among the choices, and point at the nearest one.

    Raises:
        InputError: `name must be one of elu, relu; got 'rleu' (did you mean 'relu'?)`.
    """
    choices = sorted(choices)
    if value not in choices:
        raise InputError(
            f"{name} must be one of {', '.join(choices)}; got {value!r}{nearest(value, choices)}"
        )


def nearest(value: str, choices: Iterable[str]) -> str:
    """` (did you mean 'relu'?)`, or nothing when no choice is near."""
    match = get_close_matches(str(value), list(choices), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""
