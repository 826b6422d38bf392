"""RSNA Pneumonia Detection Challenge 2018, whose films are part of NIH ChestX-ray14."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import NOBODY, Collection, Decision, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import (
    find_file,
    find_films,
    optional_file,
    read_columns,
    unused_files,
)
from fluoroscope.sources.reading.csv_cells import read_label, refuse_cells, unknown_patients
from fluoroscope.sources.reading.ids import read_ids

if TYPE_CHECKING:
    import pandas as pd


Keys = Data


BOXES, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
STAGES = ("stage_2", "stage_1")  # of the challenge; its first stage had fewer films
OFFICIAL = ("stage_?_train_labels.csv*", "stage_?_detailed_class_info.csv*")
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
OPACITY = "Lung Opacity"
FURTHER = ("Normal", "No Lung Opacity / Not Normal")


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """The labelled training set of the challenge as downloaded from Kaggle, one row per image.

    Views are only in the DICOM headers, which only `scripts/prepare.py` reads.

    Args:
        root: directory of stage_2_train_labels.csv and stage_2_train_images/. If it also holds the
            mapping to NIH ChestX-ray14, the patients are those of NIH; otherwise every image counts
            as a separate patient, although some patients have several images.
        labels: `Lung Opacity` (default), from the column Target; with the CSV of detailed classes
            also `Normal` and `No Lung Opacity / Not Normal`.

    Raises:
        InputError: for a missing CSV or column, an image with two values of Target or two classes,
            and an invalid cell.
    """
    import pandas as pd

    directory = existing_root(root)
    boxes = find_file(directory, [BOXES.replace(STAGES[0], stage) for stage in STAGES])
    stage = boxes.name[: len(STAGES[0])].lower()
    targets, decision = _targets(boxes)
    classes = optional_file(directory, [CLASSES.replace(STAGES[0], stage)])
    available = [OPACITY, *FURTHER] if classes else [OPACITY]
    chosen = select_labels(available, [OPACITY] if labels is None else labels)
    findings = pd.DataFrame({OPACITY: targets})
    if classes:
        found = _classes(classes).reindex(targets.index)
        for label in FURTHER:
            findings[label] = found.eq(label).astype(float).where(found.notna())
    patients, counted = _patients(directory, targets.index)
    films = directory / f"{stage}_train_images"
    places = [films, films / films.name, directory]
    table = study_table(
        find_films([f"{image}.dcm" for image in targets.index], places),
        findings[chosen],
        patients=patients,
    )
    owner = "nih14" if patients else NOBODY
    unused = unused_files(directory, OFFICIAL, [boxes, classes])
    return Collection(table, directory, (decision, *counted, *unused), patients_of=owner)


def _targets(file: Path) -> tuple[pd.Series, Decision]:
    """Target of each image; the CSV has one row per box, and one row for an image without boxes."""
    cells = read_columns(file, ["patientId", "Target"], "rsna")
    images = read_ids(cells["patientId"], file, "every row needs a patientId")
    targets = read_label(cells["Target"], file)
    first = targets.groupby(images).transform("first")
    rule = "all rows of an image have the same Target, 1 or 0"
    refuse_cells(images, targets == first, rule, file)
    by_image = targets.groupby(images, sort=False).first()
    counts = {"boxes": int(targets.sum()), "images with a box": int(by_image.sum())}
    return by_image, Decision(f"{OPACITY}: present if an image has a box", counts)


def _classes(file: Path) -> pd.Series:
    """Detailed class of each image; an image with two boxes has two rows in the CSV."""
    cells = read_columns(file, ["patientId", "class"], "rsna").apply(lambda cell: cell.str.strip())
    cells["patientId"] = read_ids(cells["patientId"], file, "every row needs a patientId")
    rule = f"classes are {', '.join((OPACITY, *FURTHER))}"
    refuse_cells(cells["class"], cells["class"].isin([OPACITY, *FURTHER]), rule, file)
    classes = cells.groupby("patientId")["class"]
    one = classes.transform("nunique") == 1
    refuse_cells(cells["patientId"], one, "all rows of an image have the same class", file)
    return classes.first()


def _patients(directory: Path, images: pd.Index) -> tuple[list[str] | None, tuple[Decision, ...]]:
    """Patients of NIH ChestX-ray14 according to the mapping; None without the mapping."""
    file = directory / MAPPING
    if not file.is_file():
        return None, unknown_patients(len(images))
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        # In the table of NIH, 00013774_026.png is film 26 of patient 13774.
        known = {row["subset_img_id"]: str(int(row["img_id"].split("_")[0])) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot read {file}: it must be a list of subset_img_id and img_id; download it "
            "again, or remove it to treat every image as a separate patient"
        ) from error
    missing = [image for image in images if image not in known]
    if missing:
        raise InputError(
            f"{file} lacks {len(missing)} of {len(images)} images, such as {missing[0]}; download "
            "it again, or remove it to treat every image as a separate patient"
        )
    patients = [known[image] for image in images]
    counted = Decision("patients: those of NIH ChestX-ray14", {"patients": len(set(patients))})
    return patients, (counted,)
