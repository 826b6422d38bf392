"""Write files so that a reader finds the old file or the new one, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
