"""Elements of the DICOM headers of a collection, such as the patient, view, sex or age."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fluoroscope.data.study_table import SOME_UNKNOWN, Decision, relative_paths
from fluoroscope.sources.reading.ids import is_missing


def read_headers(paths: Sequence[str | Path], keywords: Sequence[str]) -> list[tuple[str, ...]]:
    """One row per file with the text of each element; "" where it is missing.

    >>> read_headers([Path("film.png")], ["PatientID", "ViewPosition"])
    [('', '')]

    Args:
        paths: the files; for one that is not DICOM, or cannot be read, all elements are "".
        keywords: of the elements, as DICOM spells them.
    """
    from fluoroscope.console import show_progress
    from fluoroscope.files.dicom_file import read_header

    with ThreadPoolExecutor() as pool:
        rows = pool.map(partial(read_header, keywords=keywords), paths)
        return list(show_progress(rows, "reading DICOM headers", len(paths)))


def header_patients(paths: Sequence[str | Path]) -> tuple[list[str], tuple[Decision, ...]] | None:
    """The patient of each file by the Patient ID of its DICOM header, as a mark.

    A mark is a hash: the ID itself is written nowhere. A file without an ID, or with one such as
    Anonymous, is a patient of its own. None if the headers hold no ID, or one and the same:
    anonymisation often writes the same ID everywhere.
    """
    marks = [_mark(patient) for (patient,) in read_headers(paths, ["PatientID"])]
    if len(set(marks) - {""}) < 2:
        return None
    own = relative_paths([os.path.abspath(path) for path in paths])
    patients = [mark or path for mark, path in zip(marks, own, strict=True)]
    unnamed = marks.count("")
    found = Decision(
        "patients by the Patient ID of DICOM headers", {"images": len(marks) - unnamed}
    )
    return patients, (found, *([Decision(SOME_UNKNOWN, {"images": unnamed})] if unnamed else ()))


def _mark(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()[:16] if not is_missing(patient) else ""
