"""Ids: nobody is a patient, one id has one spelling, and ids that look alike are reported."""

import csv
import gzip
import io
import re

import numpy as np
import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.errors import InputError
from tests.support.collections import WRITERS, touch
from tests.support.dicoms import write_dicom

NOBODY = [
    *("nan", "NaN", "NAN", "None", "none", "null", "NULL", "NA", "N/A", "n.a.", "#N/A", "<NA>"),
    *(
        "-",
        "--",
        "?",
        ".",
        "_",
        " ",
        "",
        "Unknown",
        "UNKNOWN",
        "unk.",
        "(unknown)",
        "not available",
    ),
    *("Anonymous", "anonymized", "missing", "[redacted]", "-1", "-1.0", "-999", "XXXX", "#VALUE!"),
]
LOST = ["8.39860E+35", "8.3986e35", "8,39860E+35", "1E+15", "839860488694292000000000000000000000"]
PEOPLE = [
    "0",
    "12e5",
    "1e10",
    "P-1",
    "nancy",
    "nano",
    "Anonym7",
    "NA12",
    "1.2.840",
    "x1",
    "10000000",
]


def table_of(root, patients):
    names = [f"{number}.png" for number in range(len(patients))]
    touch(*(root / name for name in names))
    frame = pd.DataFrame({"path": names, "who": patients, "Edema": 1})
    frame.to_csv(root / "studies.csv", index=False)
    return {"root": root, "csv": "studies.csv", "path_column": "path", "labels": ["Edema"]}


def said(collection):
    """The decisions on rows, without that on files."""
    return [d for d in collection.decisions if not d.policy.startswith("other files below")]


@pytest.mark.parametrize("cell", NOBODY + LOST)
def test_a_cell_that_identifies_nobody_is_refused_or_counted(tmp_path, cell):
    given = table_of(tmp_path, ["p1", cell, cell, "p2"]) | {"patient_column": "who"}
    why = "digits of this number are lost" if cell in LOST else "every image needs a patient"
    message = rf"column 'who' holds {re.escape(repr(cell))} in row 3 \(invalid rows: 2; .*{why}"
    with pytest.raises(InputError, match=f"{message}.*; or set data.on_missing_patient=own"):
        sources.load("table", **given)
    found = sources.load("table", **given, on_missing_patient="own")
    assert found.table["patient"].tolist() == ["p1", "1.png", "2.png", "p2"]
    assert [decision.counts for decision in said(found)] == [{"images": 2}]


def test_a_code_that_only_looks_like_nobody_is_a_patient(tmp_path):
    found = sources.load("table", **table_of(tmp_path, PEOPLE), patient_column="who")
    assert found.table["patient"].tolist() == PEOPLE
    assert said(found) == []


PATIENTS = {  # a table of each source that reads patients from one, and the column
    "nih14": ("Data_Entry_2017_v2020.csv", "Patient ID"),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "PatientID"),
    "mimic_cxr": ("mimic-cxr-2.0.0-split.csv.gz", "subject_id"),
}


def change_column(file, change, *columns):
    packed = file.suffix == ".gz"
    text = gzip.decompress(file.read_bytes()).decode() if packed else file.read_text()
    rows = list(csv.reader(io.StringIO(text)))
    for place in [i for i, name in enumerate(rows[0]) if name in columns]:
        for row in rows[1:]:
            row[place] = change(row[place])
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    file.write_bytes(
        gzip.compress(stream.getvalue().encode()) if packed else stream.getvalue().encode()
    )


@pytest.mark.parametrize("source", PATIENTS)
@pytest.mark.parametrize("cell", ["nan", "8.39860E+35", "Unknown"])
def test_every_collection_refuses_nobody(films, tmp_path, source, cell):
    root = WRITERS[source](films, tmp_path / source)
    name, column = PATIENTS[source]
    change_column(root / name, lambda value: cell, column)
    with pytest.raises(InputError, match=rf"column '{column}' holds '{re.escape(cell)}' in row 2"):
        sources.load(source, root)


def test_a_pattern_that_finds_nobody_is_refused(tmp_path):
    names = ["normal/p1_0.png", "normal/unknown_0.png", "sick/unknown_1.png", "sick/p2_0.png"]
    touch(*(tmp_path / name for name in names))
    message = r"^2 of 4 images have the patient 'unknown', who may be anyone; correct how"
    with pytest.raises(InputError, match=message):
        sources.load("folder", tmp_path, patient_pattern=r"([a-z0-9]+)_")


def test_headers_of_nobody_are_images_without_a_patient(tmp_path):
    root, rows = tmp_path / "siim", ["ImageId,EncodedPixels"]
    root.mkdir()
    for number, patient in enumerate(["p1", "Anonymous", "N/A", "", "p1"]):
        write_dicom(root / f"1.2.{number}.dcm", np.eye(9, dtype=np.uint8), PatientID=patient)
        rows.append(f"1.2.{number},{-1 if number % 2 else '3 4'}")
    (root / "train-rle.csv").write_text("\n".join(rows) + "\n")
    found = sources.load("siim_pneumothorax", root)
    assert found.table["patient"].tolist() == ["p1", "1.2.1", "1.2.2", "1.2.3", "p1"]
    assert [decision.counts for decision in said(found)] == [{"images": 3}]


def test_patients_by_header_are_not_those_of_nobody(tmp_path):
    for number, patient in enumerate(["p1", "Anonymous", "UNKNOWN", "p2"]):
        path = tmp_path / ("sick" if number % 2 else "normal") / f"{number}.dcm"
        path.parent.mkdir(exist_ok=True)
        write_dicom(path, np.eye(9, dtype=np.uint8), PatientID=patient)
    found = sources.load("folder", tmp_path)
    own = [name for name in found.table["patient"] if "/" in name]
    assert own == ["normal/2.dcm", "sick/1.dcm"]
    assert found.table["patient"].nunique() == 4


IDS = {  # columns of each source's tables that name a patient, a study, an image or a reader
    "nih14": {"Patient ID"},
    "padchest": {"PatientID"},
    "mimic_cxr": {"subject_id", "study_id", "dicom_id"},
    "vindr": {"image_id", "rad_id"},
    "rsna": {"patientId"},
    "siim_pneumothorax": {"ImageId"},
    "table": {"patient"},
}


def load_written(source, root):
    keys = {"csv": "studies.csv", "path_column": "path", "labels": ["Effusion"]}
    return sources.load(
        source, root, **(keys | {"patient_column": "patient"} if source == "table" else {})
    )


@pytest.mark.parametrize(
    "spelling", [lambda cell: f"{cell}.0" if cell.isdigit() else cell, " {} ".format]
)
@pytest.mark.parametrize("source", IDS)
def test_an_id_is_the_same_however_a_table_spells_it(films, tmp_path, source, spelling):
    """pandas writes 50414267.0 where a column has an empty cell; each table alone is rewritten."""
    root = WRITERS[source](films, tmp_path / source)
    if source == "table":  # here ids are numbers
        change_column(root / "studies.csv", lambda cell: cell.lstrip("p"), "patient")
    meant = load_written(source, root)
    tables = sorted({*root.glob("*.csv*")})
    assert tables
    for file in tables:
        kept = file.read_bytes()
        change_column(file, spelling, *IDS[source])
        found = load_written(source, root)
        pd.testing.assert_frame_equal(found.table, meant.table)
        assert found.decisions == meant.decisions
        file.write_bytes(kept)


@pytest.mark.parametrize(
    "patients",
    [("P01", "p01", "q"), ("007", "7", "8"), ("P_01", "P-01", "p 1"), ("Ａ1", "A1", "B")],
)
def test_ids_that_may_be_one_patient_are_said_and_kept_apart(tmp_path, patients):
    found = sources.load(
        "table", **table_of(tmp_path, [*patients, *patients]), patient_column="who"
    )
    assert found.table["patient"].tolist() == [*patients, *patients]
    alike = len(patients) - ("q" in patients or "8" in patients or "B" in patients)
    (alike_ones,) = said(found)
    assert alike_ones.describe().endswith(f"kept apart (patients {alike})")


@pytest.mark.parametrize("patients", [("1.23", "12.3", "10", "100"), ("P1", "P10", "Q1", "1P")])
def test_other_ids_are_not_taken_for_one_patient(tmp_path, patients):
    given = table_of(tmp_path, patients)
    assert said(sources.load("table", **given, patient_column="who")) == []


def test_own_patients_are_not_compared(tmp_path):
    touch(*(tmp_path / name for name in ("1.png", "01.png", "nan")))
    (tmp_path / "studies.csv").write_text("path,Edema\n1.png,1\n01.png,0\nnan,1\n")
    given = {"csv": "studies.csv", "path_column": "path", "labels": ["Edema"]}
    (unknown,) = said(sources.load("table", tmp_path, **given))
    assert unknown.policy.startswith("patients unknown")
