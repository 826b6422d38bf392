"""A CSV's cells to the values of the study table; every cell is read as the text it is."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.data.study_table import SPLIT_NAMES, Decision, select_labels
from fluoroscope.errors import InputError, nearest
from fluoroscope.sources.reading.csv_files import read_csv

if TYPE_CHECKING:
    import pandas as pd


# "1.0": pandas writes a 0/1 column that has empty cells this way.
LABEL_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": math.nan}
REPORT_VALUES = LABEL_VALUES | {"-1": -1.0, "-1.0": -1.0}


def find_csv(directory: Path | None, csv: str | Path | None) -> Path:
    """The file below `directory`, or else as given.

    Raises:
        InputError: where no file is named or found.
    """
    if not csv:
        raise InputError("data.csv is not set: name the CSV file, data.csv=studies.csv")
    given = Path(csv).expanduser().absolute()
    candidates = [given] if directory is None else [directory / Path(csv).expanduser(), given]
    for file in candidates:
        if file.is_file():
            return file
    tried = " or ".join(dict.fromkeys(str(file) for file in candidates))
    raise InputError(f"data.csv: no file {tried}")


def require_column(cells: pd.DataFrame, column: str | None, key: str, file: Path) -> None:
    """Refuse a column that the CSV lacks.

    Raises:
        InputError: lists the columns there are, and the nearest one.
    """
    if column is None or column not in cells.columns:
        wanted = "is not set" if column is None else f"names the column {column!r}"
        raise InputError(
            f"{key} {wanted}, but {file} has the columns {', '.join(cells.columns)}"
            f"{nearest(column or '', cells.columns)}"
        )


def choose_labels(
    header: pd.DataFrame, labels: Sequence[str] | None, used: Collection[str | None], file: Path
) -> list[str]:
    """The label columns, in the order given.

    Args:
        header: all columns of the file, with rows or without.
        labels: the columns; None is refused with a list of the ones that could be labels.
        used: columns that mean something else.
        file: named in errors.

    Raises:
        InputError: for a column that is not there.
    """
    free = [column for column in header.columns if column not in used]
    if labels is not None and free:
        return select_labels(free, labels)
    cells = read_csv(file)
    binary = [column for column in free if _is_binary(cells[column])]
    raise InputError(
        f"data.labels is not set; the columns of {file} that hold 1, 0 or nothing are: "
        f"{', '.join(binary) or 'none'}"
    )


def read_label(cells: pd.Series, file: Path) -> pd.Series:
    """1, 0 or NaN for an empty cell."""
    values = cells.str.strip()
    refuse_cells(
        cells,
        values.isin([*LABEL_VALUES]),
        "labels are 1 (present), 0 (absent) or empty (unknown); data.uncertain, where a source has "
        "it, also takes -1",
        file,
    )
    return values.map(LABEL_VALUES).astype(float)


def read_splits(cells: pd.Series, file: Path) -> list[str | None]:
    """The splits "train", "val" and "test" from their usual names, None from an empty cell."""
    names = cells.str.strip().str.lower()
    refuse_cells(
        cells, names.isin([*SPLIT_NAMES, ""]), "splits are train, val, test or empty", file
    )
    return [SPLIT_NAMES.get(name) for name in names]


def read_patients(cells: pd.Series, file: Path) -> list[str]:
    """As `spelt_patients`, refused where they are empty."""
    patients = spelt_patients(cells)
    refuse_cells(cells, patients != "", "every image needs its patient", file)
    return list(patients)


def spelt_patients(cells: pd.Series) -> pd.Series:
    """Of a number one spelling: pandas writes 11 as 11.0 where a cell of the column is empty."""
    return cells.str.strip().str.replace(r"^(\d+)\.0$", r"\1", regex=True)


def read_paths(cells: pd.Series, file: Path) -> list[str]:
    """Paths as they are written, refused where they are empty or Windows' on another system."""
    refuse_cells(cells, cells.str.strip() != "", "every row needs the path of its image", file)
    if os.sep == "/":
        foreign = cells.str.contains("\\", regex=False) & ~cells.str.contains("/", regex=False)
        refuse_cells(cells, ~foreign, "folders are separated by /", file)
    return list(cells)


def unknown_patients(images: int) -> tuple[Decision, ...]:
    """Told by every source that knows no patients."""
    return (Decision("patients unknown: every image counts as its own", {"images": images}),)


def read_views(cells: pd.Series) -> list[str | None]:
    return [view or None for view in cells.str.strip()]


def _is_binary(cells: pd.Series) -> bool:
    values = cells.str.strip()
    return bool(values.isin([*LABEL_VALUES]).all() and (values != "").any())


def refuse_cells(cells: pd.Series, usable: pd.Series, rule: str, file: Path) -> None:
    """Refuse a column of which some cells are not `usable`; names the first of them."""
    import numpy as np

    bad = np.flatnonzero(~usable.to_numpy(bool))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{file}: column {cells.name!r} holds {_short(cells.iloc[row])!r} in row {row + 2} "
            f"({len(bad)} such rows; the header is row 1); {rule}"
        )


def read_report_label(cells: pd.Series, file: Path) -> pd.Series:
    """1, 0, -1 for uncertain and NaN for an empty cell, as a report labeller writes them."""
    values = cells.str.strip()
    refuse_cells(cells, values.isin([*REPORT_VALUES]), "labels are 1, 0, -1 or empty", file)
    return values.map(REPORT_VALUES).astype(float)


def _short(cell: str) -> str:
    return cell if len(cell) <= 40 else f"{cell[:40]}..."
