"""CheXpert, as CheXpert-v1.0 or CheXpert-v1.0-small."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fluoroscope.choices import BLANK, PROPER_SHARE, UNCERTAIN
from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import number, one_of
from fluoroscope.data.policies import add_up, apply_policies
from fluoroscope.data.study_table import PEOPLE, Collection, Decision, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import find_file, optional_file, unused_files
from fluoroscope.sources.reading.csv_cells import read_report_label, refuse_cells, require_column
from fluoroscope.sources.reading.csv_files import read_csv
from fluoroscope.sources.reading.people import read_people

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Keys(Data):
    """Keys of `data=chexpert`."""

    uncertain: str = one_of(*UNCERTAIN)
    blank: str = one_of(*BLANK)
    soft_target: float = number(*PROPER_SHARE)


VIEW_COLUMNS = ("Frontal/Lateral", "AP/PA")
TRAIN_CSVS = ("train.csv",)
# CheXlocalize calls the tables val_labels.csv and test_labels.csv, and the first folder val.
VALID_CSVS = ("valid.csv", "val_labels.csv")
TEST_CSVS = ("test.csv", "test_labels.csv", "groundtruth.csv")
CSVS = (TRAIN_CSVS, VALID_CSVS, TEST_CSVS)
REPORT_CSVS = ("train.csv", "valid.csv")  # these have all labels, and the views
OTHERS = ("train_chexbert.csv*", "train_visualchexbert.csv*", "chexpert demo.xlsx")
OFFICIAL = (*(f"{name}*" for names in CSVS for name in names), *OTHERS)
# The folders of the large download. The first has the tables and valid/, the others the patients.
BATCHES, BATCH_1 = "CheXpert-v1.0 batch *", "CheXpert-v1.0 batch 1 (validate & csv)"
FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
)
# The folder of the collection, which is data.root or lies in it, then the image.
PATH = (
    r"^(?P<folder>.*?)(?P<part>train|valid|val|test)/"
    r"(?P<image>(?P<patient>patient\d+)/study\d+/[^/]+)$"
)


class Part(NamedTuple):
    """The content of one CSV."""

    images: pd.DataFrame  # path, patient, view, split
    labels: pd.DataFrame
    decisions: tuple[Decision, ...]


def read(
    root: str | Path | None, labels: Sequence[str] | None = None, **policies: Any
) -> Collection:
    """CheXpert as downloaded; valid.csv is val if a table of the test set exists, otherwise test.

    Before the test set was released, radiologists had labelled only these 234 images. They are
    worth more for the score than for the choice of a checkpoint. Without train.csv, as in
    CheXlocalize, the tables of val and test alone are a collection to evaluate on.

    Args:
        root: directory of train.csv, or of the batches of the large download.
        labels: names of `FINDINGS`; None keeps all. A label that the table of the test set lacks
            is unknown for its images.
        policies: arguments of `data.policies.apply_policies`.

    Raises:
        InputError: for a missing table or column and for a cell that cannot be used.
    """
    import pandas as pd

    directory = existing_root(root)
    chosen = select_labels(FINDINGS, labels)
    files = _splits(directory)
    parts = [_part(directory, file, split, chosen, policies) for file, split in files.items()]
    images = pd.concat([part.images for part in parts], ignore_index=True)
    table = study_table(
        images["path"],
        pd.concat([part.labels for part in parts]).reindex(columns=chosen),
        *(images[column].tolist() for column in ("patient", "split", "view")),
        **{name: images[name].tolist() for name in PEOPLE if name in images},
    )
    decisions = add_up(decision for part in parts for decision in part.decisions)
    return Collection(table, directory, (*decisions, *unused_files(directory, OFFICIAL, files)))


def _splits(directory: Path) -> dict[Path, str]:
    tables = [[*names, *(f"{BATCH_1}/{name}" for name in names)] for names in CSVS]
    train, valid, test = (optional_file(directory, names) for names in tables)
    splits = {train: "train", valid: "val" if test else "test", test: "test"}
    found = {file: split for file, split in splits.items() if file}
    # If there is none, this raises an error that names the right folder.
    return found or {find_file(directory, [*chain(*CSVS), *chain(*tables)]): "train"}


def _batches(directory: Path) -> list[Path]:
    return sorted(folder for folder in directory.glob(BATCHES) if folder.is_dir())


def _part(
    directory: Path, file: Path, split: str, chosen: list[str], policies: dict[str, Any]
) -> Part:
    import pandas as pd

    cells = read_csv(file).rename(columns={"Airspace Opacity": "Lung Opacity"})
    full = file.name.lower().startswith(REPORT_CSVS)
    if not full and "Study" in cells:
        cells = _images_of_studies(cells, directory)
    there = chosen if full else [label for label in chosen if label in cells]
    for column in ["Path", *there, *VIEW_COLUMNS] if full else ["Path", *there]:
        require_column(cells, column, "data=chexpert", file)
    labels = pd.DataFrame({label: read_report_label(cells[label], file) for label in there})
    decided, decisions = apply_policies(labels, **policies)
    size = Decision("official splits", {f"{file.name} as {split}": len(cells)})
    return Part(_images(cells, directory, file).assign(split=split), decided, (size, *decisions))


def _images(cells: pd.DataFrame, directory: Path, file: Path) -> pd.DataFrame:
    import pandas as pd

    found = cells["Path"].str.extract(PATH)
    rule = "paths end in train|valid|test/patient00001/study1/view1_frontal.jpg"
    refuse_cells(cells["Path"], found["image"].notna(), rule, file)
    paths = pd.Series("", found.index, dtype=object)
    for (folder, part), rows in found.groupby(["folder", "part"], sort=False):
        homes = _homes(_places(directory, str(folder), str(part)), rows["patient"])
        paths[rows.index] = homes + os.sep + rows["image"]
    columns = {"path": paths, "patient": found["patient"], "view": _views(cells)}
    # Patients are 18 or older; an age of 0 is an unknown one.
    people = read_people(cells.replace({"Age": {"0": ""}}), "Sex", "Age")
    return pd.DataFrame(columns | {k: pd.Series(v, cells.index, object) for k, v in people.items()})


def _places(directory: Path, folder: str, part: str) -> list[Path]:
    """Folders that hold patients of train, valid or test: as the CSV says, or as downloaded."""
    batches = _batches(directory)
    words = ("valid", "val") if part in ("valid", "val") else (part,)
    places = [top / word for top in (directory / folder, directory, *batches) for word in words]
    there = [place for place in dict.fromkeys(places) if place.is_dir()]
    if part == "train":
        there += batches
        if not there and directory in _batches(directory.parent):
            raise InputError(
                f"data.root: {directory} is one batch of the download; "
                f"set data.root={directory.parent}"
            )
    return there or [directory / part]


def _homes(places: list[Path], patients: pd.Series) -> pd.Series | str:
    """The first of the places that holds each patient."""
    if len(places) == 1:
        return str(places[0])
    found = {name: str(place) for place in reversed(places) for name in os.listdir(place)}
    return patients.map(found).fillna(str(places[0]))


def _views(cells: pd.DataFrame) -> pd.Series:
    """PA, AP or Lateral; Frontal if a table of the test set gives neither PA nor AP."""
    if not {*VIEW_COLUMNS} <= {*cells}:
        return cells["Path"].str.contains("_lateral").map({True: "Lateral", False: "Frontal"})
    frontal = cells["AP/PA"].str.strip().replace("", "Frontal")
    return frontal.mask(cells["Frontal/Lateral"].str.strip() == "Lateral", "Lateral")


def _images_of_studies(cells: pd.DataFrame, directory: Path) -> pd.DataFrame:
    """Turn a table with one row per study into one row per image, from the files on disk."""
    import pandas as pd

    studies = cells["Study"].str.extract(r"(test/patient\d+/study\d+)/?$")[0].fillna("")
    images = [sorted(path.name for path in (directory / s).glob("view*.jpg")) for s in studies]
    # Every study has this image; if it is missing, `check_files` reports it.
    listed = [names or ["view1_frontal.jpg"] for names in images]
    rows = cells.assign(Path=pd.Series(listed, index=cells.index)).explode(
        "Path", ignore_index=True
    )
    return rows.assign(Path=rows["Study"].str.rstrip("/") + "/" + rows["Path"])
