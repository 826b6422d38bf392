"""Columns of a user's table that the study table does not keep."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoroscope.sources.reading.csv_cells import read_paths
from fluoroscope.sources.reading.csv_files import read_csv, read_header
from fluoroscope.sources.reading.named_tables import find_csv

if TYPE_CHECKING:
    import pandas as pd


def column_names(data: Mapping[str, Any]) -> list[str]:
    """The columns of the table of `data=table`; other sources have none.

    Args:
        data: the data section of a configuration.
    """
    return [str(name) for name in read_header(_file(data)[0])] if "path_column" in data else []


def further_columns(
    data: Mapping[str, Any], paths: list[str], columns: Sequence[str]
) -> pd.DataFrame:
    """The cells of some columns as text, one row per image; "" if it is empty.

    Args:
        data: the data section of a configuration with `data=table`.
        paths: of the images, absolute.
        columns: names among `column_names`.
    """
    file, base = _file(data)
    key = data["path_column"]
    cells = read_csv(file, list(dict.fromkeys([key, *columns])))
    places = [os.path.abspath(os.path.join(base, path)) for path in read_paths(cells[key], file)]
    return cells[list(columns)].set_axis(places).reindex(paths, fill_value="")


def _file(data: Mapping[str, Any]) -> tuple[Path, str]:
    """The table, and the directory to which its paths are relative."""
    root = None if data["root"] is None else Path(data["root"]).expanduser().absolute()
    file = find_csv(root, data["csv"], "data.csv")
    return file, str(root or file.parent)
