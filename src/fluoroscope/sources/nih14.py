"""NIH ChestX-ray14."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import Collection, first_three, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import find_file, read_columns
from fluoroscope.sources.reading.csv_cells import read_patients, read_views, refuse_cells
from fluoroscope.sources.reading.csv_files import read_text

if TYPE_CHECKING:
    import pandas as pd


Keys = Data


CSVS = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
LISTS = ("test_list.txt", "train_val_list.txt")
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening"),
    *("Pneumonia", "Pneumothorax"),
)


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """NIH ChestX-ray14 as downloaded; images on the official test list are the test split.

    Labels are the 14 findings (default) and `No Finding`. A label that the CSV does not name for an
    image is 0. The official lists may contain images that the CSV lacks.

    Raises:
        InputError: for a missing CSV or column; with both official lists, also for an image of the
            CSV that is in neither or in both.
    """
    directory = existing_root(root)
    file = find_file(directory, CSVS)
    cells = read_columns(file, COLUMNS, "nih14")
    wanted = FINDINGS if labels is None else labels
    chosen = select_labels([*FINDINGS, "No Finding"], wanted)
    names = list(cells["Image Index"])
    table = study_table(
        _paths(directory, names),
        _findings(cells["Finding Labels"], file).reindex(columns=chosen, fill_value=0),
        patients=read_patients(cells["Patient ID"], file),
        splits=_splits(directory, names),
        views=read_views(cells["View Position"]),
    )
    return Collection(table, directory)


def _findings(cells: pd.Series, file: Path) -> pd.DataFrame:
    """A 0/1 column for each finding; unknown words are refused, else they would be ignored."""
    named = {cell: set(cell.split("|")) for cell in cells.unique()}
    known = [cell for cell, words in named.items() if words <= {*FINDINGS, "No Finding"}]
    rule = f"findings are {', '.join(FINDINGS)}, joined by |, or No Finding"
    refuse_cells(cells, cells.isin(known), rule, file)
    return cells.str.get_dummies("|")


def _paths(root: Path, names: list[str]) -> list[Path]:
    folders = [root / "images", *sorted(root.glob("images_*/images"))]
    found = {path.name: path for f in folders if f.is_dir() for path in f.iterdir()}
    return [found.get(name, root / "images" / name) for name in names]


def _splits(root: Path, names: list[str]) -> list[str | None]:
    test, train_val = (_listed(root / name) for name in LISTS)
    if test is None:
        return [None] * len(names)
    if train_val is not None:
        _check_lists(names, test, train_val)
    splits = ["test" if name in test else None for name in names]
    if test and not any(splits):
        raise InputError(
            f"data.root: {LISTS[0]} lists no image of the CSV, such as {names[0]}; use the list "
            "of the same release, or remove it to draw a test split"
        )
    return splits


def _listed(file: Path) -> set[str] | None:
    return set(read_text(file).split()) if file.is_file() else None


def _check_lists(names: list[str], test: set[str], train_val: set[str]) -> None:
    neither = [name for name in names if name not in test and name not in train_val]
    both = [name for name in names if name in test and name in train_val]
    for wrong, where in ((neither, "neither"), (both, "both")):
        if wrong:
            raise InputError(
                f"{len(wrong)} of {len(names)} images are in {where} of {' and '.join(LISTS)}: "
                f"{first_three(wrong)}; use the lists of the same release as the CSV, or remove "
                f"{LISTS[1]} to train on all images that are not in {LISTS[0]}"
            )
