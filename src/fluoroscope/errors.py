"""What a user did that cannot work, in one sentence."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input from the user: the message says what, where and what to do.

    Commands print it alone and exit with code 2; everything else is a bug and keeps its traceback.
    """


class LoadingError(InputError):
    """A batch that could not be had, while all before it were: once that is put right, the work can
    go on where it stopped.
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


def first_sentence(error: Exception) -> str:
    r"""What a library's error says first, without the advice that is not for this program's user.

    >>> first_sentence(RuntimeError("No GPU found! Pass `weights_only=False`.\nSee https://a.b"))
    'No GPU found'
    """
    first = re.split(r"[.!?](?=\s+[A-Z]|$)|\n", str(error).strip())[0]
    return first or type(error).__name__


def nearest(value: str, choices: Iterable[str]) -> str:
    """` (did you mean 'relu'?)`, or nothing when no choice is near."""
    as_written = {choice.lower(): choice for choice in choices}
    match = get_close_matches(str(value).lower(), as_written, n=1)
    return f" (did you mean {as_written[match[0]]!r}?)" if match else ""
