"""COVID-19 Radiography Database, Kaggle's tawsifurrahman/covid19-radiography-database."""

import re
from collections.abc import Sequence
from pathlib import Path

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import NOBODY, Collection, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import find_folder
from fluoroscope.sources.reading.csv_cells import unknown_patients
from fluoroscope.sources.reading.tree import look_through

Keys = Data


NORMAL = "Normal"
FINDINGS = ("COVID", "Lung_Opacity", "Viral Pneumonia")
# By the letters of a folder's name: the first release has COVID-19 and NORMAL.
CLASSES = {re.sub("[^a-z]", "", name.lower()): name for name in (*FINDINGS, NORMAL)}
WANTED = "the folders COVID and Normal of the COVID-19 Radiography Database"
OTHERWISE = "for other class folders use data=folder"


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """Images of the four class folders; every class except Normal is a label.

    Lung masks and workbooks are left out. The collection has no patient numbers and no splits.

    Args:
        root: directory of the class folders, or one above it.
        labels: names of class folders; None keeps all.

    Raises:
        InputError: if the folder COVID or Normal is missing, or a class has two folders.
    """
    import pandas as pd

    directory = find_folder(existing_root(root), _has_classes, WANTED, OTHERWISE)
    folders = _class_folders(directory)
    present = [name for name in FINDINGS if name in folders]
    chosen = select_labels(present, labels)
    # Before version 4 the images were in the class folder itself.
    homes = {
        str(_first_folder(folders[name] / "images", folders[name])): name
        for name in sorted([*present, NORMAL])
    }
    images = [
        (path, homes[folder])
        for path in look_through(directory).images
        if (folder := path.rpartition("/")[0]) in homes
    ]
    table = study_table(
        [path for path, _ in images],
        pd.DataFrame({label: [name == label for _, name in images] for label in chosen}),
    )
    return Collection(table, directory, unknown_patients(len(table)), NOBODY)


def _has_classes(directory: Path) -> bool:
    return {"COVID", NORMAL} <= {name for name, _ in _named(directory)}


def _class_folders(directory: Path) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for name, folder in _named(directory):
        if name in folders:
            raise InputError(
                f"data.root: {directory} has two folders for the class {name}: "
                f"{folders[name].name} and {folder.name}; keep one of them"
            )
        folders[name] = folder
    return folders


def _named(directory: Path) -> list[tuple[str, Path]]:
    """Class and folder of each class folder."""
    letters = [(re.sub("[^a-z]", "", f.name.lower()), f) for f in sorted(directory.glob("*/"))]
    return [(CLASSES[name], folder) for name, folder in letters if name in CLASSES]


def _first_folder(*folders: Path) -> Path:
    return next(folder for folder in folders if folder.is_dir())
