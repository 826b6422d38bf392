"""A user's table, with one row per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from fluoroscope.choices import PROPER_SHARE
from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import number, one_of
from fluoroscope.data.policies import apply_policies
from fluoroscope.data.study_table import (
    NOBODY,
    SOME_UNKNOWN,
    Collection,
    Decision,
    study_table,
)
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading import csv_cells as cells_of
from fluoroscope.sources.reading.csv_files import read_csv, read_header

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Keys(Data):
    """Keys of `data=table`."""

    csv: str = MISSING
    path_column: str = MISSING
    patient_column: str | None = MISSING
    split_column: str | None = MISSING
    view_column: str | None = MISSING
    on_missing_patient: str = one_of("stop", "own")
    uncertain: str = one_of("refuse", "zeros", "ones", "ignore", "soft")
    blank: str = one_of("ignore", "zero")
    soft_target: float = number(*PROPER_SHARE)


# For runs that are older than these keys: the values that keep their behaviour.
LATER = {
    **{"on_missing_patient": "stop", "uncertain": "refuse", "blank": "ignore"},
    "soft_target": 0.7,
}


def read(
    root: str | Path | None,
    *,
    csv: str | Path | None,
    path_column: str | None,
    labels: Sequence[str] | None,
    patient_column: str | None = None,
    split_column: str | None = None,
    view_column: str | None = None,
    on_missing_patient: str = "stop",
    uncertain: str = "refuse",
    blank: str = "ignore",
    soft_target: float = 0.7,
) -> Collection:
    """A user's CSV or Parquet file: one row per image, one column per label.

    Args:
        root: directory to which `csv` and the paths in it are relative; None means the directory
            of `csv`.
        csv: the file.
        path_column: column with the image's path.
        labels: label columns, required; their cells are 1, 0 or empty.
        patient_column: column with the patient; None treats every image as a separate patient.
        split_column: column with train, val, test or nothing.
        view_column: column with the view position.
        on_missing_patient: "stop" refuses an empty cell, "own" treats its image as a separate
            patient.
        uncertain: "refuse" refuses labels of -1; others as in `data.policies.apply_policies`.
        blank, soft_target: as in `data.policies.apply_policies`.

    Raises:
        InputError: for a missing file or column, and an invalid cell.
    """
    directory = None if root is None else existing_root(root)
    file = cells_of.find_csv(directory, csv)
    named = {
        "data.path_column": path_column,
        "data.patient_column": patient_column,
        "data.split_column": split_column,
        "data.view_column": view_column,
    }
    cells, chosen = _cells(file, named, labels)
    base = directory or file.parent
    paths = cells_of.read_paths(cells[path_column], file)
    patients, decisions = None, cells_of.unknown_patients(len(cells))
    if patient_column:
        patients, decisions = _patients(cells[patient_column], paths, on_missing_patient, file)
    findings, counted = _findings(cells[chosen], file, uncertain, blank, soft_target)
    table = study_table(
        [os.path.join(str(base), path) for path in paths],
        findings,
        patients=patients,
        splits=split_column and cells_of.read_splits(cells[split_column], file),
        views=view_column and cells_of.read_views(cells[view_column]),
    )
    unknown = sum(decision.counts["images"] for decision in decisions)
    owner = NOBODY if unknown == len(table) else None
    return Collection(table, base, (*decisions, *counted), owner)


def _cells(
    file: Path, named: dict[str, str | None], labels: Sequence[str] | None
) -> tuple[pd.DataFrame, list[str]]:
    """The columns in use, and the names of the label columns."""
    own = [column for column in named.values() if column]
    wanted = [*own, *(labels if isinstance(labels, list) else ())]
    header = read_header(file, wanted)
    for key, column in named.items():
        if column is not None or key == "data.path_column":
            cells_of.require_column(header, column, key, file)
    chosen = cells_of.choose_labels(header, labels, own, file)
    cells = read_csv(file, [*own, *chosen])
    if cells.empty:
        raise InputError(f"{file} has no rows below its header; check data.csv")
    return cells, chosen


def _findings(
    cells: pd.DataFrame, file: Path, uncertain: str, blank: str, soft_target: float
) -> tuple[pd.DataFrame, tuple[Decision, ...]]:
    import pandas as pd

    refuse = uncertain == "refuse"
    read_label = cells_of.read_label if refuse else cells_of.read_report_label
    return apply_policies(
        pd.DataFrame({label: read_label(cells[label], file) for label in cells}),
        uncertain="ignore" if refuse else uncertain,
        blank=blank,
        soft_target=soft_target,
    )


def _patients(
    cells: pd.Series, paths: Sequence[str], on_missing: str, file: Path
) -> tuple[list[str], tuple[Decision, ...]]:
    import pandas as pd

    blank = cells.str.strip() == ""
    if on_missing == "stop" or not blank.any():
        return cells_of.read_patients(cells, file), ()
    counted = Decision(SOME_UNKNOWN, {"images": int(blank.sum())})
    return cells_of.spelt_patients(cells).mask(blank, pd.Series(paths)).tolist(), (counted,)
