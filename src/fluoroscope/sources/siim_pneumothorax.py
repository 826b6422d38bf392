"""SIIM-ACR pneumothorax: the DICOM files of the challenge, or their PNG copy on Kaggle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import (
    NOBODY,
    SOME_UNKNOWN,
    Collection,
    Decision,
    select_labels,
    study_table,
)
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import find_file, unused_files
from fluoroscope.sources.reading.csv_cells import refuse_cells, require_column, unknown_patients
from fluoroscope.sources.reading.csv_files import read_csv
from fluoroscope.sources.reading.dicom_headers import read_headers
from fluoroscope.sources.reading.ids import is_missing, read_ids
from fluoroscope.sources.reading.tree import film_key, look_through

if TYPE_CHECKING:
    import pandas as pd


Keys = Data


RLE_CSVS = ("train-rle.csv", "stage_2_train.csv")
PNG_CSVS = {"stage_1_train_images.csv": None, "stage_1_test_images.csv": "test"}
OFFICIAL = ("train-rle*.csv*", "stage_?_train*.csv*", "stage_1_test_images.csv*")
MASKS = ("EncodedPixels", " EncodedPixels")  # the challenge's own CSV has the space
LABEL = "Pneumothorax"


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """One row per image of the CSV; a mask in any of the image's rows means Pneumothorax.

    Patients and views are read from the DICOM headers. The PNG copy has neither, but it has a test
    split.

    Args:
        root: directory of train-rle.csv, or of stage_1_train_images.csv and png_images.
        labels: Pneumothorax.

    Raises:
        InputError: for a missing CSV or column, and an invalid label.
    """
    import pandas as pd

    directory = existing_root(root)
    chosen = select_labels([LABEL], labels)
    if (directory / next(iter(PNG_CSVS))).is_file():
        return _read_png(directory, chosen)
    file = find_file(directory, [*RLE_CSVS, next(iter(PNG_CSVS))])
    images = _masked(file)
    # DICOM files come last, so that a film replaces a mask of the same name.
    files = [Path(path) for path in look_through(directory).images]
    files.sort(key=lambda path: path.suffix.lower() == ".dcm")
    found = {film_key(path.name): path for path in files}
    paths = [found.get(film_key(name), directory / f"{name}.dcm") for name in images.index]
    headers = read_headers(paths, ["PatientID", "ViewPosition"])
    patients = ["" if is_missing(patient) else patient for patient, _ in headers]
    views = [view or None for _, view in headers]
    decision = Decision(SOME_UNKNOWN, {"images": patients.count("")})
    own = [patient or path.stem for patient, path in zip(patients, paths, strict=True)]
    table = study_table(paths, pd.DataFrame(dict.fromkeys(chosen, images)), own, views=views)
    counted = (decision,) if decision.counts["images"] else ()
    unused = unused_files(directory, OFFICIAL, [file])
    owner = None if any(patients) else NOBODY
    return Collection(table, directory, (*counted, *unused), owner)


def _masked(file: Path) -> pd.Series:
    """Whether the rows of an image hold a mask; the index is the image."""
    cells = read_csv(file)
    require_column(cells, "ImageId", "data=siim_pneumothorax", file)
    named = [column for column in MASKS if column in cells.columns]
    require_column(cells, next(iter(named), MASKS[0]), "data=siim_pneumothorax", file)
    images = read_ids(cells["ImageId"], file, "every row needs an image")
    runs = cells[named[0]].str.strip()
    refuse_cells(cells[named[0]], runs != "", "an image without pneumothorax has -1", file)
    return (runs != "-1").groupby(images, sort=False).any()


def _read_png(directory: Path, chosen: Sequence[str]) -> Collection:
    import pandas as pd

    parts = []
    for name, split in PNG_CSVS.items():
        file = directory / name
        if file.is_file():
            cells = read_csv(file)
            for column in ("new_filename", "has_pneumo"):
                require_column(cells, column, "data=siim_pneumothorax", file)
            has = cells["has_pneumo"]
            refuse_cells(has, has.isin(["0", "1"]), "has_pneumo is 0 or 1", file)
            parts.append(cells.assign(split=split))
    images = pd.concat(parts, ignore_index=True)
    if not (directory / "png_images").is_dir():
        raise InputError(
            f"data.root: {directory} has no folder png_images next to its CSV; check data.root"
        )
    table = study_table(
        [directory / "png_images" / name for name in images["new_filename"]],
        pd.DataFrame(dict.fromkeys(chosen, images["has_pneumo"].astype(float))),
        splits=list(images["split"]),
    )
    unused = unused_files(directory, OFFICIAL, [directory / name for name in PNG_CSVS])
    return Collection(table, directory, (*unknown_patients(len(table)), *unused), NOBODY)
