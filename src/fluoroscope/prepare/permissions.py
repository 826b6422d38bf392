"""The permissions of a copy: nobody may read more of it than of the collection."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from operator import and_
from pathlib import Path

FILE, FOLDER = 0o666, 0o777


def of_copy(mode: int) -> int:
    """Mode of the copy of a file: that of the original, readable for its owner."""
    return mode & FILE | 0o400


@contextmanager
def as_strict_as(sources: Iterable[str], root: Path, out: Path, new: bool) -> Iterator[None]:
    """Keep what is written to `out` private, and open it at the end as far as all sources are.

    Images get the mode of their original when they are written. A folder holds images of many
    folders, and a table names all images: they get only the permissions that the collection's
    folder and all these folders or images have in common. An existing folder is never opened.

    Args:
        sources: images of the collection, absolute paths.
        root: folder of the collection.
        out: folder of the copy.
        new: whether the folder was made for the copy.
    """
    files = list(dict.fromkeys(sources))
    folders = {root, *map(Path, {os.path.dirname(file) for file in files})}
    strict = _common(folders) & (FOLDER if new else out.stat().st_mode)
    if new:
        out.chmod(0o700)
    umask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(umask)
    table = _common(files) & strict & FILE | 0o600
    for path in (out, *out.iterdir(), *out.glob("images/*")):
        mode = strict & FOLDER | 0o700 if path.is_dir() else table
        with suppress(PermissionError):  # an existing folder of someone else
            path.chmod(mode)


def _common(paths: Iterable[str | Path]) -> int:
    modes = (os.stat(path).st_mode for path in paths if os.path.exists(path))
    return reduce(and_, modes, FOLDER)
