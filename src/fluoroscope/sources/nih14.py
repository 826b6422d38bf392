"""NIH ChestX-ray14."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import Collection, first_three, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import (
    find_file,
    find_films,
    optional_list,
    read_columns,
    unused_files,
)
from fluoroscope.sources.reading.csv_cells import read_views, refuse_cells
from fluoroscope.sources.reading.csv_files import read_text
from fluoroscope.sources.reading.ids import read_patients
from fluoroscope.sources.reading.people import read_people

if TYPE_CHECKING:
    import pandas as pd


Keys = Data


# The release of the whole set, the older one, and that of Kaggle's sample of 5,606 images.
CSVS = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
PEOPLE = ("Patient Gender", "Patient Age")
# The names of the lists beside the original images, and beside copies of 224 pixels.
TEST = ("test_list.txt", "test_list_NIH.txt")
TRAIN_VAL = ("train_val_list.txt", "train_val_list_NIH.txt")
OFFICIAL = ("*train*list*", "*val*list*", "*test*list*", "data_entry*")
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening"),
    *("Pneumonia", "Pneumothorax"),
)


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """NIH ChestX-ray14 as downloaded; images on the official test list are the test split.

    The images lie in `images`, in `images_001/images` and so on, or, of a resized copy, in a folder
    such as `images-224/images-224`. If an image is in several, the original one is read.

    Labels are the 14 findings (default) and `No Finding`. A label that the CSV does not name for an
    image is 0. The official lists may contain images that the CSV lacks.

    Raises:
        InputError: for a missing CSV or column; with both official lists, also for an image of the
            CSV that is in neither or in both.
    """
    directory = existing_root(root)
    file = find_file(directory, CSVS)
    cells = read_columns(file, COLUMNS, "nih14", optional=PEOPLE)
    wanted = FINDINGS if labels is None else labels
    chosen = select_labels([*FINDINGS, "No Finding"], wanted)
    names = list(cells["Image Index"])
    test, train_val = (optional_list(directory, lists) for lists in (TEST, TRAIN_VAL))
    table = study_table(
        find_films(names, _folders(directory)),
        _findings(cells["Finding Labels"], file).reindex(columns=chosen, fill_value=0),
        patients=read_patients(cells["Patient ID"], file),
        splits=_splits(names, test, train_val),
        views=read_views(cells["View Position"]),
        **read_people(cells, *PEOPLE),
    )
    used = [file, test, train_val if test else None]
    return Collection(table, directory, unused_files(directory, OFFICIAL, used))


def _findings(cells: pd.Series, file: Path) -> pd.DataFrame:
    """A 0/1 column for each finding; unknown words are refused, else they would be ignored."""
    named = {cell: set(cell.split("|")) for cell in cells.unique()}
    known = [cell for cell, words in named.items() if words <= {*FINDINGS, "No Finding"}]
    rule = f"findings are {', '.join(FINDINGS)}, joined by |, or No Finding"
    refuse_cells(cells, cells.isin(known), rule, file)
    return cells.str.get_dummies("|")


def _folders(root: Path) -> list[Path]:
    """The folders of the original images, then those of copies, such as `images-224`."""
    original = [*sorted(root.glob("images_0*/images"), reverse=True), root / "images"]
    copies = [*root.glob("images*"), *root.glob("images*/images*"), *root.glob("sample/images")]
    return [*original, *sorted(copies), root]


def _splits(names: list[str], test: Path | None, train_val: Path | None) -> list[str | None]:
    if test is None:
        return [None] * len(names)
    listed = _listed(test)
    if train_val is not None:
        _check_lists(names, test, train_val)
    splits = ["test" if name in listed else None for name in names]
    if listed and not any(splits):
        raise InputError(
            f"data.root: {test.name} lists no image of the CSV, such as {names[0]}; use the list "
            "of the same release, or remove it to draw a test split"
        )
    return splits


def _listed(file: Path) -> set[str]:
    return set(read_text(file).split())


def _check_lists(names: list[str], test: Path, train_val: Path) -> None:
    listed, others = _listed(test), _listed(train_val)
    neither = [name for name in names if name not in listed and name not in others]
    both = [name for name in names if name in listed and name in others]
    for wrong, where in ((neither, "neither"), (both, "both")):
        if wrong:
            raise InputError(
                f"{len(wrong)} of {len(names)} images are in {where} of {test.name} and "
                f"{train_val.name}: {first_three(wrong)}; use the lists of the same release as the "
                f"CSV, or remove {train_val.name} to train on all images that are not in "
                f"{test.name}"
            )
