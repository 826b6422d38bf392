"""Write files whole, so that a reader never finds half of one, and by one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from fluoroscope.errors import InputError


def partial_file(file: Path) -> Path:
    """The path to which `write_atomically` writes before it renames the file."""
    return file.with_name(f".{file.name}.part")


@contextmanager
def write_atomically(file: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a path to write to, and rename it to `file` at the end; after an error, remove it.

    Args:
        file: its folder must exist.
        shared: several processes may write this file at once; each writes a separate partial file,
            and the last one remains.
    """
    part = partial_file(file)
    if shared:
        part = part.with_suffix(f".{os.getpid()}.part")
    try:
        yield part
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def only_writer(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file, which exists as long as it is held. A killed process loses the lock.

    On a file system without locks it has no effect.

    Raises:
        InputError: the refusal, if another process holds the lock.
        OSError: the file cannot be made.
    """
    file = _hold(lock, refusal)
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _hold(lock: Path, refusal: str) -> TextIO:
    while True:
        file = lock.open("w")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            raise InputError(refusal) from None
        except OSError:
            return file
        # Its last holder may have removed the file since it was opened here; the next process
        # would then hold the lock of another file.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()
