"""What machines do to a run: it goes on without them, or says in one sentence how it can go on."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fluoroscope.errors import InputError, LoadingError

# A full disk, a quota, a limit on the size of files, a disk that broke or went read-only.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = {errno.EROFS, errno.EIO}


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Add to what stops the run in this folder how to go on with it.

    Raises:
        InputError: a batch could not be had, or a file not be written.
    """
    go_on = f"continue with run.resume={folder}"
    try:
        yield
    except LoadingError as error:
        raise InputError(f"{error}, then {go_on}") from error
    except OSError as error:
        if error.errno not in NO_ROOM | UNWRITABLE:
            raise
        place = error.filename or f"the run in {folder}"
        remedy = "make room" if error.errno in NO_ROOM else "repair that"
        told = f"cannot write {place} ({error.strerror}); {remedy} and {go_on}"
        raise InputError(told) from error


class LastingRun:
    """A W&B run whose own process may end: then it takes no more calls, and training goes on.

    Args:
        run: whose attributes this has.
    """

    def __init__(self, run: Any) -> None:
        self._run, self._lost = run, False

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._run, name)
        return partial(self._attempt, value) if callable(value) else value

    def _attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._lost:
            return None
        try:
            return call(*args, **kwargs)
        except ConnectionError:
            self._lost = True
            print("W&B: its own process is gone, and training goes on without it", flush=True)
            return None
