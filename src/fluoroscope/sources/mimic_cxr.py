"""MIMIC-CXR-JPG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoroscope.config.schema import one_of
from fluoroscope.data.policies import apply_policies
from fluoroscope.data.study_table import Collection, Decision, select_labels, study_table
from fluoroscope.sources import chexpert, existing_root
from fluoroscope.sources.chexpert import FINDINGS
from fluoroscope.sources.reading.collection_files import (
    find_file,
    optional_file,
    read_columns,
    unused_files,
)
from fluoroscope.sources.reading.csv_cells import (
    read_report_label,
    read_splits,
    read_views,
    refuse_cells,
)
from fluoroscope.sources.reading.ids import read_ids
from fluoroscope.sources.reading.people import read_sexes, years_between

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Keys(chexpert.Keys):
    """Keys of `data=mimic_cxr`."""

    labeler: str = one_of("chexpert", "negbio")


KEYS = ("dicom_id", "subject_id", "study_id")
LABELERS = ("chexpert", "negbio")
OFFICIAL = ("mimic-cxr-*-test-set-labeled.csv*",)  # the radiologist's labels of release 2.1.0
PATIENTS, PERSON = "patients.csv", ("subject_id", "gender", "anchor_age", "anchor_year")
VIEWS = {"LATERAL": "Lateral", "LL": "Lateral"}


def read(
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    labeler: str = "chexpert",
    **policies: Any,
) -> Collection:
    """MIMIC-CXR-JPG as downloaded, with its official splits.

    Args:
        root: directory of the mimic-cxr-2.0.0-*.csv.gz and of files/.
        labels: names of CheXpert's 14 findings; None keeps all. Each image has the labels of its
            study; they are unknown if the labeler has no row for the study.
        labeler: "chexpert" or "negbio".
        policies: arguments of `data.policies.apply_policies`.

    Raises:
        InputError: for a missing CSV or column, a study or image with two rows, and an invalid
            cell.
    """
    directory = existing_root(root)
    chosen = select_labels(FINDINGS, labels)
    images, file = _cells(directory, "split", [*KEYS, "split"], key="dicom_id")
    found = _findings(directory, labeler, chosen)
    described = _described(directory, images["dicom_id"])
    known = images["study_id"].isin(found.index)
    decided, decisions = apply_policies(found.reindex(images["study_id"][known]), **policies)
    decided.index = images.index[known]
    table = study_table(
        _paths(directory, images),
        decided.reindex(images.index),
        patients=list(images["subject_id"]),
        splits=read_splits(images["split"].replace("validate", "val"), file),
        views=read_views(described["ViewPosition"].str.strip().replace(VIEWS)),
        **_people(directory, images["subject_id"], described),
    )
    if not known.all():
        policy = f"studies without a row of the {labeler} labeler: unknown"
        decisions = (*decisions, Decision(policy, {"images": int((~known).sum())}))
    unused = unused_files(directory, OFFICIAL, [])
    return Collection(table, directory, (*decisions, *unused))


def _cells(
    directory: Path, name: str, columns: Sequence[str], key: str
) -> tuple[pd.DataFrame, Path]:
    file = find_file(directory, [f"mimic-cxr-2.0.0-{name}.csv"])
    cells = read_columns(file, columns, "mimic_cxr", optional=["StudyDate"])
    for column in [column for column in columns if column in KEYS]:
        cells[column] = read_ids(cells[column], file, f"every row needs a {column}")
    refuse_cells(cells[key], ~cells[key].duplicated(), f"keep one row per {key}", file)
    return cells, file


def _findings(directory: Path, labeler: str, chosen: list[str]) -> pd.DataFrame:
    """The labeler's values, one row per study."""
    import pandas as pd

    cells, file = _cells(directory, labeler, ["study_id", *chosen], key="study_id")
    values = {label: read_report_label(cells[label], file) for label in chosen}
    return pd.DataFrame(values).set_index(cells["study_id"])


def _described(directory: Path, images: pd.Series) -> pd.DataFrame:
    """The rows of the table of metadata, in the order of the images."""
    cells, _ = _cells(directory, "metadata", ["dicom_id", "ViewPosition"], key="dicom_id")
    return cells.set_index("dicom_id").reindex(images).fillna("").reset_index()


def _people(directory: Path, patients: pd.Series, described: pd.DataFrame) -> dict[str, list[Any]]:
    """Sex and age at the study from MIMIC-IV's patients.csv, which gives the age in one year."""
    import pandas as pd

    file = optional_file(directory, [PATIENTS])
    if file is None:
        return {}
    cells = read_columns(file, PERSON, "mimic_cxr")
    cells["subject_id"] = read_ids(cells["subject_id"], file, "every row needs a subject_id")
    cells = cells.drop_duplicates("subject_id").set_index("subject_id").reindex(patients).fillna("")
    people: dict[str, list[Any]] = {"sex": read_sexes(cells["gender"])}
    if "StudyDate" in described:
        known = cells[["anchor_year", "anchor_age"]].apply(pd.to_numeric, errors="coerce")
        born = known["anchor_year"] - known["anchor_age"]
        people["age"] = years_between(born.fillna(0).astype(str), described["StudyDate"])
    return people


def _paths(directory: Path, images: pd.DataFrame) -> pd.Series:
    """`files/p10/p10000032/s50414267/DICOM_ID.jpg`."""
    patient, study = images["subject_id"], images["study_id"]
    folder = f"{directory / 'files'}/p" + patient.str[:2] + "/p" + patient + "/s" + study
    return folder + "/" + images["dicom_id"] + ".jpg"
