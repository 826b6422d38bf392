"""A user's table, with one row per image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from fluoroscope.choices import PROPER_SHARE
from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import number, one_of
from fluoroscope.data.study_table import NOBODY, SOME_UNKNOWN, Collection, Decision, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading import csv_cells as cells_of
from fluoroscope.sources.reading.csv_files import read_csv, read_header
from fluoroscope.sources.reading.ids import identifies_nobody, read_ids, read_patients, spelt_ids
from fluoroscope.sources.reading.named_tables import find_csv

if TYPE_CHECKING:
    import pandas as pd

    from fluoroscope.sources.reading.table_labels import TableLabels


@dataclass
class Keys(Data):
    """Keys of `data=table`."""

    csv: str = MISSING
    path_column: str = MISSING
    patient_column: str | None = MISSING
    split_column: str | None = MISSING
    view_column: str | None = MISSING
    on_missing_patient: str = one_of("stop", "own")
    positive: list[str] | None = MISSING
    label_column: str | None = MISSING
    label_separator: str = one_of("none", "pipe", "semicolon", "comma")
    label_csv: str | None = MISSING
    label_key: str | None = MISSING
    uncertain: str = one_of("refuse", "zeros", "ones", "ignore", "soft")
    blank: str = one_of("ignore", "zero")
    soft_target: float = number(*PROPER_SHARE)


OWN = "; or set data.on_missing_patient=own: each such image counts as a separate patient"


def check_place(data: Mapping[str, Any]) -> None:
    """Refuse a root or a file that does not exist."""
    directory = None if data["root"] is None else existing_root(data["root"])
    file = find_csv(directory, data["csv"], "data.csv")
    if data["label_csv"]:
        find_csv(directory or file.parent, data["label_csv"], "data.label_csv")
    elif data["label_key"]:
        raise _no_label_file(data["label_key"])


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
    label_column: str | None = None,
    label_separator: str = "none",
    label_csv: str | Path | None = None,
    label_key: str | None = None,
    **meanings: Any,
) -> Collection:
    """A user's CSV or Parquet file: one row per image, one column per label.

    Args:
        root: directory to which `csv` and the paths in it are relative; None means the directory
            of `csv`.
        csv: the file.
        path_column: column with the image's path.
        labels: label columns; their cells are 1, 0 or empty. With `label_column`, names in it;
            None means all but that of a normal film.
        patient_column: column with the patient; None treats every image as a separate patient.
        split_column: column with train, val, test or nothing.
        view_column: column with the view position.
        on_missing_patient: what to do with a cell that identifies nobody: "stop" refuses it, "own"
            treats its image as a separate patient.
        label_column: a column whose cells name the findings of the image.
        label_separator: the name of the character between several findings in a cell, or "none".
        label_csv: another file with the labels, one row per key.
        label_key: column of both files by which their rows belong together; None means
            `path_column`.
        meanings: `positive`, the words of label columns that mean present, in any case; `uncertain`
            ("refuse" refuses -1), `blank` and `soft_target` as in `data.policies.apply_policies`.

    Raises:
        InputError: for a missing file or column, and an invalid cell.
    """
    from fluoroscope.sources.reading.table_labels import TableLabels

    directory = None if root is None else existing_root(root)
    file = find_csv(directory, csv, "data.csv")
    base = directory or file.parent
    key = label_key or path_column
    named = {
        "data.path_column": path_column,
        "data.patient_column": patient_column,
        "data.split_column": split_column,
        "data.view_column": view_column,
    }
    form = TableLabels(labels, column=label_column, separator=label_separator, **meanings)
    if label_csv:
        cells, _ = _cells(file, {**named, "data.label_key": key})
        further = find_csv(base, label_csv, "data.label_csv")
        findings, counted = _joined(cells[key], file, further, form)
    elif label_key:
        raise _no_label_file(label_key)
    else:
        cells, chosen = _cells(file, named, form)
        findings, counted = form.decide(form.read(cells[chosen], file))
    paths = cells_of.read_paths(cells[path_column], file)
    patients, decisions = None, cells_of.unknown_patients(len(cells))
    if patient_column:
        patients, decisions = _patients(cells[patient_column], paths, on_missing_patient, file)
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


def _no_label_file(key: str) -> InputError:
    return InputError(f"data.label_key={key} needs data.label_csv, the file with labels")


def _cells(
    file: Path, named: dict[str, str | None], form: TableLabels | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """The columns in use, and the names of those with labels; without `form` there are none."""
    own = [column for column in named.values() if column]
    header = read_header(file, [*own, *(form.mentioned() if form else ())])
    for key, column in named.items():
        if column is not None or key == "data.path_column":
            cells_of.require_column(header, column, key, file)
    chosen = form.choose(header, own, file) if form else []
    cells = read_csv(file, [*own, *chosen])
    if cells.empty:
        key = "data.csv" if "data.path_column" in named else "data.label_csv"
        raise InputError(f"{file} has no rows below its header; check {key}")
    return cells, chosen


def _joined(
    keys: pd.Series, file: Path, label_file: Path, form: TableLabels
) -> tuple[pd.DataFrame, tuple[Decision, ...]]:
    """The labels of the rows of `file` from another file; unknown without a row there."""
    cells, chosen = _cells(label_file, {"data.label_key": str(keys.name)}, form)
    rule = "every row needs a key"
    theirs = read_ids(cells[keys.name], label_file, rule)
    cells_of.refuse_cells(theirs, ~theirs.duplicated(), "keep one row per key", label_file)
    ours = read_ids(keys, file, rule)
    known = ours.isin(theirs)
    if not known.any():
        raise InputError(
            f"no row of {label_file} belongs to a row of {file}: their columns {keys.name!r} have "
            "no cell in common; name another column with data.label_key"
        )
    values = form.read(cells[chosen], label_file).set_axis(theirs)
    decided, counted = form.decide(values.loc[ours[known]])
    counts = {
        "images without a row in data.label_csv: labels unknown": ("images", ~known),
        "rows of data.label_csv without an image: not used": ("rows", ~theirs.isin(ours)),
    }
    joined = [
        Decision(p, {of: int(which.sum())}) for p, (of, which) in counts.items() if which.any()
    ]
    findings = decided.set_axis(ours.index[known]).reindex(ours.index)
    return findings, (*joined, *counted)


def _patients(
    cells: pd.Series, paths: Sequence[str], on_missing: str, file: Path
) -> tuple[list[str], tuple[Decision, ...]]:
    import pandas as pd

    nobody = identifies_nobody(cells)
    if on_missing == "stop" or not nobody.any():
        return read_patients(cells, file, OWN), ()
    counted = Decision(SOME_UNKNOWN, {"images": int(nobody.sum())})
    return spelt_ids(cells).mask(nobody, pd.Series(paths)).tolist(), (counted,)
