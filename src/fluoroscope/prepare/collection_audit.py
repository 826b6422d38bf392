"""The audit of a collection by `scripts/prepare.py`."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fluoroscope import audit, sources
from fluoroscope.audit.audit_page import HTML
from fluoroscope.config.data_keys import Data
from fluoroscope.config.prepare import Audit
from fluoroscope.data.splits import SPLITS, assign_splits
from fluoroscope.data.study_table import Collection, Decision, label_columns, patients_known
from fluoroscope.data.survey import find_unusable, survey_images, turned_images, user_cache
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.people import add_headers
from fluoroscope.sources.reading.read_studies import refuse_masks


class Studies(NamedTuple):
    """The studies that `audit.run` expects."""

    table: pd.DataFrame
    labels: list[str]
    skipped: int
    decisions: tuple[Decision, ...]


def main(job: Audit) -> None:
    """Entry of `scripts/prepare.py data=... audit=only`.

    Raises:
        InputError: the audit has hard findings.
    """
    folder = job.out or Path(HydraConfig.get().runtime.output_dir)
    if count := write_report(job, read_collection(job.train.data), folder):
        raise InputError(_refusal(count, folder))


def check(job: Audit, collection: Collection) -> None:
    """Audit a collection before it is copied.

    Raises:
        InputError: the audit has hard findings.
    """
    assert job.out is not None
    if count := write_report(job, collection, job.out):
        raise InputError(f"{_refusal(count, job.out)}; audit=false copies the collection as it is")


def read_collection(data: Data) -> Collection:
    """The collection as a run reads it, before images are checked and splits are drawn, with sex,
    age and view of its DICOM headers.
    """
    keys: Any = OmegaConf.to_container(data)
    return add_headers(sources.load_section(keys))


def write_report(job: Audit, collection: Collection, folder: Path) -> int:
    """Write the report and return the number of hard findings.

    Images that cannot be used are findings, unless `data.on_unreadable=skip` leaves them out.
    """
    data, table = job.train.data, collection.table
    paths = table["path"].tolist()
    survey = survey_images(paths, cache_dir=user_cache())
    if data.on_unreadable == "skip":
        unusable = find_unusable(paths, survey, "skip")  # raises an error if no image is left
        table = table.drop(index=unusable).reset_index(drop=True)
        survey = survey.drop(index=unusable).reset_index(drop=True)
    refuse_masks(table["path"].tolist(), survey, getattr(data, "exclude", None))
    labels, undrawn = label_columns(table), None
    chosen = data.labels is not None
    try:
        drawn = labels if chosen else _drawable(table, labels)
        table = table.assign(split=_splits(table, drawn, data))
    except InputError as error:
        undrawn = str(error)
    skipped = len(paths) - len(table)
    decisions = (*collection.decisions, *turned_images(survey))
    studies = Studies(table, labels, skipped, decisions)
    known = patients_known(collection.patients_of, collection.decisions)
    options = {"chosen": chosen, "undrawn": undrawn, "on_duplicate": data.on_duplicate}
    options |= {"patients_known": known, "own": data.splits == "own"}
    return audit.run(studies, survey, folder, job.name_images, image_px=data.image_px, **options)


def _drawable(table: pd.DataFrame, labels: list[str]) -> list[str]:
    """The labels that splits can be stratified by: enough patients in both classes."""
    patients = table["patient"]
    return [
        label
        for label in labels
        if all(patients[table[label] == value].nunique() >= len(SPLITS) for value in (0, 1))
    ]


def _splits(table: pd.DataFrame, labels: list[str], data: Data) -> pd.Series:
    """The splits of a run with these keys.

    Raises:
        InputError: they cannot be drawn.
    """
    given, shares = data.splits == "given", (data.val_frac, data.test_frac)
    if given and table["split"].eq("test").all():
        return table["split"]  # a collection that is only for testing
    return assign_splits(
        table, labels, val_frac=shares[0], test_frac=shares[1], keep_given=given, fold=data.fold
    )["split"]


def _refusal(count: int, folder: Path) -> str:
    problems = f"{count} problem{'s' if count > 1 else ''}"
    return f"the audit found {problems} that must be solved before training; see {folder / HTML}"
