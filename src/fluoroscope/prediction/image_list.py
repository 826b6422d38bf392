"""The images of `images=`: a file, all those of a folder, or those of a table."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fluoroscope.errors import InputError
from fluoroscope.files.file_kinds import HEAD_BYTES, IMAGE, kind_of
from fluoroscope.sources.reading.csv_cells import require_column
from fluoroscope.sources.reading.csv_files import read_csv, read_header
from fluoroscope.sources.reading.tree import IMAGE_SUFFIXES, look_through


class ImageList(NamedTuple):
    """Images to predict.

    Attributes:
        paths: of the files; they may not exist.
        root: folder from which the names start; None: an image's name is its row in the table.
        others: files in the folder that are not images, counted by their kind.
    """

    paths: list[str]
    root: str | None
    others: Mapping[str, int]

    def name(self, row: int) -> str:
        """Path relative to the folder, with forward slashes, or the table's row, from 0."""
        if self.root is None:
            return str(row)
        return self.paths[row][len(self.root) :].lstrip(os.sep).replace(os.sep, "/")


def list_images(place: Path, path_column: str) -> ImageList:
    """The images of a file, a folder or a table, in the order of the folder's names or the rows.

    Args:
        path_column: of a table; relative paths start at the table's folder.

    Raises:
        InputError: there are none, or the table cannot be read or lacks the column.
    """
    if place.is_dir():
        return _of_folder(place)
    if is_image(place):
        path = os.path.abspath(place)
        return ImageList([path], os.path.dirname(path), {})
    return _of_table(place, path_column)


def is_image(file: Path) -> bool:
    """Whether a file is an image by its content, or should be one by its name."""
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with file.open("rb") as stream:
            return kind_of(stream.read(HEAD_BYTES)) == IMAGE
    except OSError as error:
        raise InputError(f"images: cannot open {file} ({error.strerror})") from None


def _of_folder(place: Path) -> ImageList:
    try:
        tree = look_through(place)
    except OSError as error:
        raise InputError(f"images: cannot open {error.filename} ({error.strerror})") from None
    if not tree.images:
        raise InputError(f"images: {place} holds no image in a supported format")
    return ImageList(tree.images, tree.root, Counter(tree.others.values()))


def _of_table(file: Path, column: str) -> ImageList:
    require_column(read_header(file, [column]), column, "path_column", file)
    cells = read_csv(file, [column])[column].tolist()
    if not cells:
        raise InputError(f"images: {file} has no rows below its header")
    folder = os.path.abspath(file.parent)
    # An empty cell names no file, and not the folder.
    return ImageList([cell and os.path.join(folder, cell) for cell in cells], None, {})
