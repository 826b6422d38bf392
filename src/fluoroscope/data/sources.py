"""Data sets to the study table: one function a source; nothing else knows data sets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fluoroscope.data import cells as csv_cells
from fluoroscope.data.folders import class_folders, class_labels, images_below, match_patients
from fluoroscope.data.studies import (
    check_files,
    first_three,
    keep_views,
    select_labels,
    study_table,
)
from fluoroscope.errors import InputError, check_choice

NIH_CSVS = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
NIH_LISTS = ("test_list.txt", "train_val_list.txt")
NIH_FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening"),
    *("Pneumonia", "Pneumothorax"),
)


def load_table(
    source: str,
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    views: Sequence[str] | None = None,
    **options: object,
) -> pd.DataFrame:
    """Study table of a source; every image in it exists and is listed once.

    Args:
        source: a key of `SOURCES`.
        root: directory of the data set.
        labels: label columns in the wanted order; None keeps what the source has.
        views: view positions to keep, such as PA; None keeps all.
        options: the further arguments of the source's function.

    Raises:
        InputError: for an unknown source, label or view, and for missing, repeated or no images.
    """
    check_choice("data", source, SOURCES)
    frame = SOURCES[source](root=root, labels=labels, **options)
    if len(frame) and views is not None:
        frame = keep_views(frame, views)
    if frame.empty:
        raise InputError(f"data={source} has no images at {root}; check data.root")
    check_files(frame)
    return frame.reset_index(drop=True)


def phantom(
    root: str | Path | None, labels: Sequence[str] | None = None, **parameters: Any
) -> pd.DataFrame:
    """Built-in synthetic x-rays below `root`; `parameters` are those of `write_collection`."""
    from fluoroscope.data.phantom import FINDINGS, write_collection

    directory = _given(root)
    select_labels(FINDINGS, labels)  # before anything is drawn
    studies = write_collection(directory, **parameters)
    findings = [column for column in studies.columns if column not in ("file", "patient", "view")]
    return study_table(
        [directory / file for file in studies["file"]],
        studies[select_labels(findings, labels)],
        patients=list(studies["patient"].astype(str)),
        views=list(studies["view"]),
    )


def folder(
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    patient_pattern: str | None = None,
) -> pd.DataFrame:
    """Class folders, with or without train, val and test folders above them.

    Two classes make one label: the class that is not called normal, or the second by alphabet.
    More classes make a label each, a normal class none.

    Args:
        root: directory of the class folders or of the split folders.
        labels: label columns to keep; None keeps all.
        patient_pattern: regular expression searched in the file name; its one group, or the group
            called `patient`, is the patient. None makes every image its own patient.

    Raises:
        InputError: for fewer than two classes, and for file names the pattern does not match.
    """
    directory = _existing(root)
    images = [
        (path, split, class_folder.name)
        for split, class_folder in class_folders(directory)
        for path in images_below(class_folder)
    ]
    names = class_labels(directory, sorted({name for _, _, name in images}))
    chosen = select_labels(names, labels)
    paths = [path for path, _, _ in images]
    return study_table(
        paths,
        pd.DataFrame({label: [name == label for _, _, name in images] for label in chosen}),
        patients=match_patients(paths, patient_pattern) if patient_pattern else None,
        splits=[split for _, split, _ in images],
    )


def table(
    root: str | Path | None,
    *,
    csv: str | Path | None,
    path_column: str | None,
    labels: Sequence[str] | None,
    patient_column: str | None = None,
    split_column: str | None = None,
    view_column: str | None = None,
) -> pd.DataFrame:
    """A CSV of one's own: one row an image, one column a label with 1, 0 or empty cells.

    Args:
        root: directory that `csv` and the paths in it start from; None: the directory of `csv`.
        csv: the file.
        path_column: column with the image's path.
        labels: label columns, required.
        patient_column: column with the patient; None makes every image its own patient.
        split_column: column with train, val, test or nothing.
        view_column: column with the view position.

    Raises:
        InputError: for a missing file or column and for a cell that cannot be used.
    """
    directory = None if root is None else _existing(root)
    file = csv_cells.find_csv(directory, csv)
    cells = csv_cells.read_csv(file)
    columns = {"path": path_column, "patient": patient_column} | {
        "split": split_column,
        "view": view_column,
    }
    for name, column in columns.items():
        if column is not None or name == "path":
            csv_cells.require_column(cells, column, f"data.{name}_column", file)
    base = directory or file.parent
    return study_table(
        [base / name for name in cells[path_column]],
        csv_cells.read_labels(cells, labels, used=columns.values(), file=file),
        patients=patient_column and csv_cells.read_patients(cells[patient_column], file),
        splits=split_column and csv_cells.read_splits(cells[split_column], file),
        views=view_column and csv_cells.read_views(cells[view_column]),
    )


def nih14(root: str | Path | None, labels: Sequence[str] | None = None) -> pd.DataFrame:
    """NIH ChestX-ray14 as downloaded; images on the official test list are the test split.

    Labels are the 14 findings (default) and `No Finding`; a finding the CSV does not name is 0.
    The lists may name images that the CSV does not have.

    Raises:
        InputError: for a missing CSV or column, and where both official lists are present, for an
            image of the CSV that is in neither or in both.
    """
    directory = _existing(root)
    files = [directory / name for name in NIH_CSVS if (directory / name).is_file()]
    if not files:
        raise InputError(f"data.root: {directory} holds no {' or '.join(NIH_CSVS)}")
    cells = csv_cells.read_csv(files[0])
    for column in ("Image Index", "Finding Labels", "Patient ID", "View Position"):
        csv_cells.require_column(cells, column, "data=nih14", files[0])
    wanted = NIH_FINDINGS if labels is None else labels
    chosen = select_labels([*NIH_FINDINGS, "No Finding"], wanted)
    names = list(cells["Image Index"])
    return study_table(
        _nih_paths(directory, names),
        cells["Finding Labels"].str.get_dummies("|").reindex(columns=chosen, fill_value=0),
        patients=csv_cells.read_patients(cells["Patient ID"], files[0]),
        splits=_nih_splits(directory, names),
        views=csv_cells.read_views(cells["View Position"]),
    )


SOURCES: dict[str, Callable[..., pd.DataFrame]] = {
    "phantom": phantom,
    "folder": folder,
    "table": table,
    "nih14": nih14,
}


def _given(root: str | Path | None) -> Path:
    if not root:
        raise InputError("data.root is not set: name the data set's directory, data.root=DIR")
    return Path(root).expanduser().absolute()


def _existing(root: str | Path | None) -> Path:
    directory = _given(root)
    if not directory.is_dir():
        raise InputError(f"data.root: there is no directory {directory}")
    return directory


def _nih_paths(root: Path, names: list[str]) -> list[Path]:
    folders = [root / "images", *sorted(root.glob("images_*/images"))]
    found = {path.name: path for f in folders if f.is_dir() for path in f.iterdir()}
    return [found.get(name, root / "images" / name) for name in names]


def _nih_splits(root: Path, names: list[str]) -> list[str | None]:
    test, train_val = (_listed(root / name) for name in NIH_LISTS)
    if test is None:
        return [None] * len(names)
    if train_val is not None:
        _check_nih_lists(names, test, train_val)
    return ["test" if name in test else None for name in names]


def _listed(file: Path) -> set[str] | None:
    return set(file.read_text(encoding="utf-8-sig").split()) if file.is_file() else None


def _check_nih_lists(names: list[str], test: set[str], train_val: set[str]) -> None:
    neither = [name for name in names if name not in test and name not in train_val]
    both = [name for name in names if name in test and name in train_val]
    for wrong, where in ((neither, "neither"), (both, "both")):
        if wrong:
            raise InputError(
                f"{len(wrong)} of {len(names)} images are in {where} of {' and '.join(NIH_LISTS)}: "
                f"{first_three(wrong)}; take the lists of the same release as the CSV, or remove "
                f"{NIH_LISTS[1]} to train on all that {NIH_LISTS[0]} does not hold"
            )
