"""A file is the old one or the new one, never half of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def part_of(file: Path) -> Path:
    """Where a file is written before it gets its name."""
    return file.with_name(f".{file.name}.part")


@contextmanager
def aside(file: Path) -> Iterator[Path]:
    """A place to write to, which then replaces the file; after an error nothing of it is left."""
    part = part_of(file)
    try:
        yield part
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
