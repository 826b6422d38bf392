"""What machines do to a run: it goes on without them, or says in one sentence how it can go on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
