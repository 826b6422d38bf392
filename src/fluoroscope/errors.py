"""Errors that a user can correct, in one sentence, and the wording that such sentences share."""

import errno
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

BAD_INPUT, CRASH = 2, 1  # exit codes of a command
# A full disk, a quota, a limit on the size of files, a disk that broke or went read-only.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = {errno.EROFS, errno.EIO}


class InputError(ValueError):
    """Bad input from the user: the message says what, where and what to do.

    Commands print it alone and exit with code 2; everything else is a bug and keeps its traceback.

    Attributes:
        made_at: file and line of the code that made the error.
        told: whether another process of the run prints it.
    """

    made_at: tuple[str, int]
    told = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        error = super().__new__(cls, *args)
        caller = sys._getframe(1)
        error.made_at = caller.f_code.co_filename, caller.f_lineno
        return error


class NotHereError(InputError):
    """This machine lacks what a valid key names, such as a GPU, a folder or a hub."""


class LoadingError(InputError):
    """A batch could not be loaded, but all batches before it could. The run can be resumed once
    the cause is removed.
    """


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is not among the choices, and point at the nearest one.

    Raises:
        InputError: `name must be one of elu, relu; got 'rleu' (did you mean 'relu'?)`.
    """
    choices = sorted(choices)
    if value not in choices:
        raise InputError(
            f"{name} must be one of {', '.join(map(str, choices))}; got {shown(value)}"
            f"{nearest(value, choices)}"
        )


def check_file(key: str, path: Path) -> None:
    """Refuse a file that does not exist, and a folder.

    Raises:
        InputError: `backbone.file: there is no file b4.safetensors`.
    """
    if path.is_dir():
        best = path / "checkpoints/best.ckpt"  # if it is a run folder
        raise InputError(f"{key}: {path} is a folder; give {best if best.is_file() else 'a file'}")
    if not path.is_file():
        raise InputError(f"{key}: there is no file {path}")


def first_sentence(error: BaseException) -> str:
    r"""The first sentence of a library's error, without its advice to programmers.

    >>> first_sentence(RuntimeError("No GPU found! Pass `weights_only=False`.\nSee https://a.b"))
    'No GPU found'
    """
    first = re.split(r"[.!?](?=\s+[A-Z]|$)|\n", str(error).strip())[0]
    return first or type(error).__name__


def plural(count: int, thing: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def shown(value: Any) -> str:
    """A value of the configuration as a refusal prints it: `'gelu'`, `null`, `[1, 2]`."""
    return repr(value) if isinstance(value, str) else json.dumps(value, default=repr)


def changes(wanted: Mapping[str, Any], section: Any) -> str:
    """`trainer.devices=1`: those of the wanted values that a section of the configuration lacks."""
    now = {key: str(getattr(section, key.rpartition(".")[2])) for key in wanted}
    return " ".join(f"{key}={to}" for key, to in wanted.items() if now[key] != str(to))


def nearest(value: Any, choices: Iterable[Any]) -> str:
    """` (did you mean 'relu'?)`, or an empty string if no choice is near."""
    as_written = {str(choice).lower(): choice for choice in choices}
    match = get_close_matches(str(value).lower(), as_written, n=1)
    return f" (did you mean {as_written[match[0]]!r}?)" if match else ""


@contextmanager
def advise_resume(folder: Path) -> Iterator[None]:
    """Add to an error of the machine how to continue the run in this folder, or to begin it.

    Raises:
        InputError: if a batch cannot be loaded, or a file cannot be written.
    """
    try:
        yield
    except LoadingError as error:
        raise InputError(f"{error}, then {_next_command(folder)}") from error
    except OSError as error:
        if error.errno not in NO_ROOM | UNWRITABLE:
            raise
        place = error.filename or f"the run in {folder}"
        remedy = "free disk space" if error.errno in NO_ROOM else "repair the file system"
        raise InputError(
            f"cannot write {place} ({error.strerror}); {remedy} and {_next_command(folder)}"
        ) from error


def _next_command(folder: Path) -> str:
    has_begun = (folder / "config.yaml").exists()
    return f"continue with run.resume={folder}" if has_begun else "repeat the command"
