"""Find the tables of a collection, and read the columns they need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.errors import InputError
from fluoroscope.sources.reading.csv_cells import require_column
from fluoroscope.sources.reading.csv_files import read_csv, read_header

if TYPE_CHECKING:
    import pandas as pd


def find_file(root: Path, names: Sequence[str]) -> Path:
    """The first of `names` that exists below `root`, plain or packed by gzip or zip.

    Raises:
        InputError: if none exists; suggests another root if a file exists one level up or down.
    """
    if found := optional_file(root, names):
        return found
    elsewhere = [root.parent, root.parent.parent, *_folders(root)]
    for directory in elsewhere:
        if found := optional_file(directory, names):
            below = len(found.relative_to(directory).parts) - 1
            raise InputError(
                f"data.root: {root} holds no {' or '.join(names)}, but there is {found}; "
                f"set data.root={found.parents[below]}"
            )
    raise InputError(f"data.root: {root} holds no {' or '.join(names)}; check data.root")


def optional_file(root: Path, names: Sequence[str]) -> Path | None:
    """As `find_file`; None if none exists."""
    packed = (root / f"{name}{suffix}" for name in names for suffix in ("", ".gz", ".zip"))
    # os.path.isfile returns False for a folder without permission, such as a disk's lost+found.
    return next((file for file in packed if os.path.isfile(file)), None)


def read_columns(file: Path, columns: Sequence[str], source: str) -> pd.DataFrame:
    """As `read_csv`.

    Raises:
        InputError: also for a column that the file lacks.
    """
    header = read_header(file)
    for column in columns:
        require_column(header, column, f"data={source}", file)
    return read_csv(file, columns)


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir())
