"""Films of children by Kermany et al.: Kaggle's chest_xray, or Mendeley's ZhangLabData."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import Collection, Decision, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.class_folders import place
from fluoroscope.sources.reading.collection_files import find_folder
from fluoroscope.sources.reading.patient_names import match_patients
from fluoroscope.sources.reading.tree import look_through

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Keys(Data):
    """Keys of `data=kaggle_pneumonia`."""

    patient_pattern: str = MISSING
    official_test: bool = MISSING


CLASSES = {"NORMAL": 0.0, "PNEUMONIA": 1.0}
LABELS = ("Pneumonia", "Bacterial", "Viral")
WANTED = "the folders train and test, with NORMAL and PNEUMONIA in them, of Kaggle's chest_xray"
OTHERWISE = "for other class folders use data=folder"


def read(
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    patient_pattern: str = r"(?i)(person\d+|IM-\d+|\d+(?=-\d{4}\.))",
    official_test: bool = True,
) -> Collection:
    """The `chest_xray` folder; its val folder of 16 images joins train, and val is drawn again.

    A patient number can occur in both the train and the test folder. It is not published whether it
    is the same child, so such images are left out of training.

    Args:
        root: `chest_xray`, or a directory above it, such as `ZhangLabData`.
        labels: names of `LABELS`; None keeps only the first. The kind of pneumonia comes from the
            file name, and is unknown if the name does not give it.
        patient_pattern: as in `sources.folder.read`.
        official_test: False gives no split and keeps all images.

    Raises:
        InputError: for other folders, and for file names the pattern does not match.
    """
    directory = find_folder(existing_root(root), _is_chest_xray, WANTED, OTHERWISE)
    chosen = select_labels(LABELS, labels or LABELS[:1])
    tree = look_through(directory)
    names = {path: tree.parts(path) for path in tree.images}
    images = place(names)
    paths = [image.path for image in images]
    table = study_table(
        paths,
        _findings(paths, [_class(directory.joinpath(*names[path][:2])) for path in paths])[chosen],
        patients=match_patients(["/".join(names[path]) for path in paths], patient_pattern),
        splits=["test" if official_test and i.split == "test" else None for i in images],
    )
    return _without_tested(Collection(table, directory))


def _is_chest_xray(folder: Path) -> bool:
    """The OCT images beside it have train and test too, with other classes."""
    classes = {child.name.upper() for child in folder.glob("train/*")}
    return {*CLASSES} <= classes and (folder / "test").is_dir()


def _class(folder: Path) -> float:
    if folder.name.upper() not in CLASSES:
        raise InputError(
            f"data.root: {folder} is neither NORMAL nor PNEUMONIA; move it away, or use data=folder"
        )
    return CLASSES[folder.name.upper()]


def _findings(paths: Sequence[str], pneumonia: Sequence[float]) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    has = np.array(pneumonia, float)
    names = [path.rpartition("/")[2].lower() for path in paths]
    kinds = {"Bacterial": "bacteria", "Viral": "virus"}
    findings = pd.DataFrame({k: [word in name for name in names] for k, word in kinds.items()})
    unnamed = (has == 1) & ~findings.any(axis=1)
    findings = findings.astype(float)
    findings.loc[unnamed] = np.nan
    return findings.assign(Pneumonia=has)


def _without_tested(collection: Collection) -> Collection:
    table = collection.table
    tests = table["split"].eq("test")
    shared = ~tests & table["patient"].isin(table.loc[tests, "patient"])
    if not shared.any():
        return collection
    decision = Decision(
        "images with a patient number of the test folder: left out", {"images": int(shared.sum())}
    )
    return collection._replace(
        table=table[~shared].reset_index(drop=True),
        decisions=(decision,),
        aside=tuple(table.loc[shared, "path"]),
    )
