"""Errors of the machine that stop a run, each with how to continue it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluoroscope.errors import InputError, LoadingError

# A full disk, a quota, a limit on the size of files, a disk that broke or went read-only.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = {errno.EROFS, errno.EIO}


@contextmanager
def advise_resume(folder: Path) -> Iterator[None]:
    """Add to an error of the machine how to continue the run in this folder.

    Raises:
        InputError: a batch could not be loaded, or a file not be written.
    """
    advice = f"continue with run.resume={folder}"
    try:
        yield
    except LoadingError as error:
        raise InputError(f"{error}, then {advice}") from error
    except OSError as error:
        if error.errno not in NO_ROOM | UNWRITABLE:
            raise
        place = error.filename or f"the run in {folder}"
        remedy = "make room" if error.errno in NO_ROOM else "repair that"
        raise InputError(
            f"cannot write {place} ({error.strerror}); {remedy} and {advice}"
        ) from error
