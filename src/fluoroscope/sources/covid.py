"""COVID-19 Radiography Database, Kaggle's tawsifurrahman/covid19-radiography-database."""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import NOBODY, Collection, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.folder import images_in
from fluoroscope.sources.reading.csv_cells import unknown_patients

Keys = Data


NORMAL = "Normal"
FINDINGS = ("COVID", "Lung_Opacity", "Viral Pneumonia")
NESTED = "COVID-19_Radiography_Dataset"


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """Images of the four class folders; every class except Normal is a label.

    Lung masks and workbooks are left out. The collection has no patient numbers and no splits.

    Args:
        root: directory of the class folders, or its parent.
        labels: names of class folders; None keeps all.

    Raises:
        InputError: if the folder COVID or Normal is missing.
    """
    import pandas as pd

    directory = _classes(existing_root(root))
    present = [name for name in FINDINGS if (directory / name).is_dir()]
    chosen = select_labels(present, labels)
    images = [
        (path, name)
        for name in sorted([*present, NORMAL])
        # Before version 4 the images were in the class folder itself.
        for path in images_in(_first_folder(directory / name / "images", directory / name))
    ]
    table = study_table(
        [path for path, _ in images],
        pd.DataFrame({label: [name == label for _, name in images] for label in chosen}),
    )
    return Collection(table, directory, unknown_patients(len(table)), NOBODY)


def _classes(root: Path) -> Path:
    for directory in (root, root / NESTED):
        if all((directory / name).is_dir() for name in ("COVID", NORMAL)):
            return directory
    raise InputError(
        f"data.root: {root} lacks the folders COVID and {NORMAL} of the COVID-19 Radiography "
        "Database; for other class folders use data=folder"
    )


def _first_folder(*folders: Path) -> Path:
    return next(folder for folder in folders if folder.is_dir())
