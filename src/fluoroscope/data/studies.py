"""The study table, which every data set becomes: one row an image, and its checks.

Columns: `path` (absolute), `patient`, `split` ("train", "val", "test" or None: not assigned yet),
`view` (or None), then one float column a label: 1 present, 0 absent, NaN unknown.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from fluoroscope.errors import InputError, check_choice

TABLE_COLUMNS = ("path", "patient", "split", "view")
# columns of the tables that labels stand in: this one, counts of the splits, predictions
RESERVED_NAMES = (*TABLE_COLUMNS, "images", "patients", "row", "group")
SPLIT_NAMES = {"train": "train", "val": "val", "test": "test"} | {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}


def study_table(
    paths: Iterable[str | Path],
    labels: pd.DataFrame,
    patients: Sequence[str] | None = None,
    splits: Sequence[str | None] | None = None,
    views: Sequence[str | None] | None = None,
) -> pd.DataFrame:
    """Study table from columns of equal length; without patients every image is its own.

    Raises:
        InputError: for a label that is called like a column of the table.
    """
    for label in labels.columns:
        if label in RESERVED_NAMES:
            raise InputError(f"a label cannot be called {label!r}; give it another name")
    absolute = [os.path.abspath(path) for path in paths]
    columns = {
        "path": absolute,
        "patient": [os.path.splitext(p)[0] for p in relative_paths(absolute)]
        if patients is None
        else patients,
        "split": [None] * len(absolute) if splits is None else splits,
        "view": [None] * len(absolute) if views is None else views,
    }
    # dtype object keeps None; the string dtype of pandas 3 would turn it into NaN.
    frame = pd.DataFrame({name: pd.Series(list(c), dtype=object) for name, c in columns.items()})
    return pd.concat([frame, labels.reset_index(drop=True).astype(float)], axis=1)


def relative_paths(paths: Sequence[str]) -> list[str]:
    """Paths below the deepest directory that holds them all, with forward slashes."""
    folders = {os.path.dirname(path) for path in paths}
    root = os.path.commonpath(folders) if folders else ""
    return [path[len(root) :].replace(os.sep, "/").lstrip("/") for path in paths]


def label_columns(table: pd.DataFrame) -> list[str]:
    return [str(column) for column in table.columns if column not in TABLE_COLUMNS]


def select_labels(available: Iterable[str], labels: Sequence[str] | None) -> list[str]:
    """The chosen labels in the order given, or all that are available.

    Raises:
        InputError: for something else than a list, and for a label that is not available.
    """
    if labels is None:
        return list(available)
    return _chosen("data.labels", labels, available)


def keep_views(table: pd.DataFrame, views: Sequence[str]) -> pd.DataFrame:
    """Rows of the given view positions.

    Raises:
        InputError: where the table has no views, or none of that name.
    """
    known = sorted(table["view"].dropna().unique())
    if not known:
        raise InputError("data.views is set, but this data set records no views; remove data.views")
    return table[table["view"].isin(_chosen("data.views", views, known))]


def check_files(table: pd.DataFrame) -> None:
    """Refuse a study table whose images are not on disk or are listed twice.

    Raises:
        InputError: says how many, and the first three.
    """
    paths = table["path"]
    missing = paths[~paths.map(os.path.isfile).astype(bool)]
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(paths)} images are not on disk: {first_three(missing)}; "
            "check data.root, or take their rows out of the table"
        )
    repeated = paths[paths.duplicated()].unique()
    if len(repeated):
        raise InputError(
            f"{len(repeated)} images are listed more than once: {first_three(repeated)}; "
            "keep one row an image"
        )


def first_three(names: Iterable[object]) -> str:
    """`a, b, c, ...`."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def _chosen(key: str, values: Sequence[str], available: Iterable[str]) -> list[str]:
    available = list(available)
    if isinstance(values, str) or not values:
        example = values or available[0]
        raise InputError(
            f"{key} must be a list of one or more of {', '.join(available)}, written as "
            f"'{key}=[{example}]'; got {values!r}"
        )
    for value in values:
        check_choice(key, value, available)
    return list(dict.fromkeys(values))
