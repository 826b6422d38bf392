"""Rows of the public collections' own tables, which the package torchxrayvision brings along."""

import csv
import gzip
import io
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from zipfile import ZipFile


def real_rows(name: str, rows: int) -> list[dict[str, str]]:
    """The first rows of a table, every cell as text.

    Args:
        name: as torchxrayvision calls the file, without .gz or .zip.
    """
    with _text(name) as file:
        return list(islice(csv.DictReader(file), rows))


def write_rows(
    file: Path, rows: list[dict[str, str]], columns: Iterable[str] | None = None
) -> None:
    """A CSV with the columns of the first row, or these."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _text(name: str) -> io.TextIOBase:
    # Importing the package would take seconds.
    package = find_spec("torchxrayvision")
    folder = Path(package.submodule_search_locations[0]) / "data"
    if (packed := folder / f"{name}.gz").is_file():
        return gzip.open(packed, "rt", newline="", encoding="utf-8")
    archive = ZipFile(folder / f"{name}.zip")
    return io.TextIOWrapper(archive.open(archive.namelist()[0]), "utf-8", newline="")
