"""A CSV's cells to the values of the study table; every cell is read as the text it is."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fluoroscope.data.studies import SPLIT_NAMES, select_labels
from fluoroscope.errors import InputError, nearest

# "1.0": pandas writes a 0/1 column that has empty cells this way.
LABEL_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": np.nan}


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


def read_csv(file: Path) -> pd.DataFrame:
    """All cells as text, an empty cell as "".

    Raises:
        InputError: for a file that cannot be opened, decoded or parsed.
    """
    try:
        cells = pd.read_csv(file, dtype=str, keep_default_na=False)
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {file}: it is not UTF-8; save it as CSV UTF-8") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    if not isinstance(cells.index, pd.RangeIndex):
        raise InputError(f"cannot read {file}: its rows have more cells than its header")
    return cells.fillna("")


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


def read_labels(
    cells: pd.DataFrame, labels: Sequence[str] | None, used: Collection[str | None], file: Path
) -> pd.DataFrame:
    """Float label columns, 1, 0 or NaN for an empty cell.

    Args:
        cells: all columns of the CSV.
        labels: the columns; None is refused with a list of the ones that could be labels.
        used: columns that mean something else.
        file: named in errors.

    Raises:
        InputError: for a column that is not there and for a cell that is not 1, 0 or empty.
    """
    free = [column for column in cells.columns if column not in used]
    if labels is None or not free:
        binary = [column for column in free if _is_binary(cells[column])]
        raise InputError(
            f"data.labels is not set; the columns of {file} that hold 1, 0 or nothing are: "
            f"{', '.join(binary) or 'none'}"
        )
    chosen = select_labels(free, labels)
    return pd.DataFrame({label: _label_values(cells[label], file) for label in chosen})


def read_splits(cells: pd.Series, file: Path) -> list[str | None]:
    """The splits "train", "val" and "test" from their usual names, None from an empty cell."""
    names = cells.str.strip().str.lower()
    _refuse_cells(
        cells, names.isin([*SPLIT_NAMES, ""]), "splits are train, val, test or empty", file
    )
    return [SPLIT_NAMES.get(name) for name in names]


def read_patients(cells: pd.Series, file: Path) -> list[str]:
    patients = cells.str.strip()
    _refuse_cells(cells, patients != "", "every image needs its patient", file)
    return list(patients)


def read_views(cells: pd.Series) -> list[str | None]:
    return [view or None for view in cells.str.strip()]


def _is_binary(cells: pd.Series) -> bool:
    values = cells.str.strip()
    return bool(values.isin([*LABEL_VALUES]).all() and (values != "").any())


def _label_values(cells: pd.Series, file: Path) -> pd.Series:
    values = cells.str.strip()
    _refuse_cells(cells, values.isin([*LABEL_VALUES]), "labels are 1, 0 or empty", file)
    return values.map(LABEL_VALUES).astype(float)


def _refuse_cells(cells: pd.Series, usable: pd.Series, rule: str, file: Path) -> None:
    bad = np.flatnonzero(~usable.to_numpy(bool))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{file}: column {cells.name!r} holds {cells.iloc[row]!r} in row {row + 2} "
            f"({len(bad)} such rows; the header is row 1); {rule}"
        )
