"""Convert a CSV's cells, which are read as text, to the values of the study table."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.data.split_names import split_of
from fluoroscope.data.study_table import ALL_UNKNOWN, Decision
from fluoroscope.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd


# pandas writes "1.0" in a 0/1 column that has empty cells.
LABEL_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": math.nan}
REPORT_VALUES = LABEL_VALUES | {"-1": -1.0, "-1.0": -1.0}


def require_column(cells: pd.DataFrame, column: str | None, key: str, file: Path) -> None:
    """Refuse a column that the CSV lacks; the error lists its columns."""
    if column is None or column not in cells.columns:
        wanted = "is not set" if column is None else f"needs the column {column!r}"
        raise InputError(
            f"{key} {wanted}; {file} has the columns {', '.join(cells.columns)}"
            f"{nearest(column or '', cells.columns)}"
        )


def read_label(cells: pd.Series, file: Path) -> pd.Series:
    """1, 0 or NaN for an empty cell."""
    values = cells.str.strip()
    refuse_cells(
        cells,
        values.isin([*LABEL_VALUES]),
        "labels must be 1 (present), 0 (absent) or empty (unknown); sources with the key "
        "data.uncertain also take -1",
        file,
    )
    return values.map(LABEL_VALUES).astype(float)


def read_splits(cells: pd.Series, file: Path) -> list[str | None]:
    """The splits "train", "val" and "test" by their usual names; None for an empty cell."""
    splits = {cell: split_of(cell) for cell in cells.unique()}
    usable = [cell for cell, split in splits.items() if split or not cell.strip()]
    refuse_cells(cells, cells.isin(usable), "splits must be train, val, test or empty", file)
    return [splits[cell] for cell in cells]


def read_paths(cells: pd.Series, file: Path) -> list[str]:
    """Unchanged paths; empty ones are refused, and Windows' ones on another system."""
    refuse_cells(cells, cells.str.strip() != "", "every row needs the path of an image", file)
    if os.sep == "/":
        foreign = cells.str.contains("\\", regex=False) & ~cells.str.contains("/", regex=False)
        refuse_cells(cells, ~foreign, "separate folders by /", file)
    return list(cells)


def unknown_patients(images: int) -> tuple[Decision, ...]:
    """The decision of every source without patient numbers."""
    return (Decision(ALL_UNKNOWN, {"images": images}),)


def read_views(cells: pd.Series) -> list[str | None]:
    return [view or None for view in cells.str.strip()]


def refuse_cells(cells: pd.Series, usable: pd.Series, rule: str, file: Path) -> None:
    """Refuse a column with cells that are not `usable`; the error quotes the first of them."""
    import numpy as np

    bad = np.flatnonzero(~usable.to_numpy(bool))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{file}: column {cells.name!r} holds {_short(cells.iloc[row])!r} in row {row + 2} "
            f"(invalid rows: {len(bad)}; the header is row 1); {rule}"
        )


def read_report_label(cells: pd.Series, file: Path) -> pd.Series:
    """The values of a report labeller: 1, 0, -1 for uncertain, and NaN for an empty cell."""
    values = cells.str.strip()
    refuse_cells(cells, values.isin([*REPORT_VALUES]), "labels must be 1, 0, -1 or empty", file)
    return values.map(REPORT_VALUES).astype(float)


def _short(cell: str) -> str:
    return cell if len(cell) <= 40 else f"{cell[:40]}..."
