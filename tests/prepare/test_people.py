"""A copy keeps sex, age and view where its collection has them; nothing else uses them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import Collection, label_columns, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.people import add_headers, read_ages, read_sexes
from tests.sources.test_findings import write_chexpert, write_nih, write_padchest
from tests.support.collections import WRITERS, touch
from tests.support.dicoms import write_dicom
from tests.support.real_rows import real_rows


def test_words_for_sex_and_age():
    words = ["F", "female", " Female ", "M", "male", "O", "Unknown", "", "nan"]
    assert read_sexes(words) == ["F", "F", "F", "M", "M", None, None, None, None]
    ages = {"58": 58, "058Y": 58, "58.0": 58, "011M": 0, "030M": 2, "005W": 0, "003D": 0}
    ages |= {"120": 120, "414": None, "": None, "-1": None, "58 years": None, "nan": None}
    assert read_ages(ages) == list(ages.values())


def test_real_rows_of_nih(tmp_path):
    rows = real_rows("Data_Entry_2017_v2020.csv", 300)
    table = sources.load("nih14", write_nih(tmp_path)).table
    assert list(table.columns[:6]) == ["path", "patient", "split", "view", "sex", "age"]
    assert table["sex"].tolist() == [row["Patient Gender"] for row in rows]
    assert table["age"].tolist() == [int(row["Patient Age"]) for row in rows]
    assert not {"sex", "age"} & {*label_columns(table)}


def test_real_rows_of_chexpert(tmp_path):
    rows = real_rows("chexpert_train.csv", 300)
    table = sources.load("chexpert", write_chexpert(tmp_path)).table
    assert table["sex"].tolist() == [row["Sex"][0] for row in rows]
    assert table["age"].tolist() == [int(row["Age"]) for row in rows]
    assert {*table["sex"]} == {"F", "M"}


def test_real_rows_of_padchest(tmp_path):
    rows = {
        row["ImageID"]: row
        for row in real_rows("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", 300)
    }
    table = sources.load("padchest", write_padchest(tmp_path)).table
    own = [rows[Path(path).name] for path in table["path"]]
    assert table["sex"].tolist() == [row["PatientSex_DICOM"] for row in own]
    years = [int(row["StudyDate_DICOM"][:4]) - int(row["PatientBirth"][:4]) for row in own]
    assert table["age"].tolist() == years
    assert 40 < np.mean(years) < 80


def test_mimic_takes_them_from_the_table_of_patients(films, tmp_path):
    root = WRITERS["mimic_cxr"](films, tmp_path / "mimic")
    before = sources.load("mimic_cxr", root).table
    assert "sex" not in before
    metadata = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    cells = pd.read_csv(metadata, dtype=str).assign(StudyDate="21800506")
    cells.to_csv(metadata, index=False)
    rows = [f"{10_000_000 + n},{'FM'[n % 2]},52,2178" for n in range(40) if n != 3]
    header = "subject_id,gender,anchor_age,anchor_year"
    (root / "patients.csv").write_text("\n".join([header, *rows]))
    table = sources.load("mimic_cxr", root).table
    unknown = table["patient"] == "10000003"
    assert table["age"].isna().equals(unknown)
    assert table["sex"].isna().equals(unknown)
    assert {*table["age"].dropna()} == {54}
    assert Counter(table["sex"].dropna()) == {"F": 60, "M": 57}
    pd.testing.assert_frame_equal(table[before.columns], before)


@pytest.mark.parametrize("source", ["rsna", "vindr", "siim_pneumothorax", "folder"])
def test_a_copy_takes_them_from_dicom_headers(source, films, tmp_path):
    root = WRITERS[source](films, tmp_path / source)
    paths = sources.load(source, root).table["path"]
    for number, path in enumerate(paths):
        pixels = np.full((9, 9), number % 200, np.uint8)
        pixels[0] = 255
        words = {"PatientSex": "FMO"[number % 3], "PatientAge": f"{number % 90:03}Y"}
        write_dicom(Path(path), pixels, **words, ViewPosition=["AP", "LL"][number % 2])
    collection = sources.load(source, root)
    table = add_headers(collection).table
    assert table["sex"].tolist() == [("F", "M", None)[n % 3] for n in range(len(table))]
    assert table["age"].tolist() == [n % 90 for n in range(len(table))]
    if source != "siim_pneumothorax":  # which reads views itself
        assert table["view"].tolist() == [["AP", "Lateral"][n % 2] for n in range(len(table))]
    before = collection.table
    pd.testing.assert_frame_equal(
        table.drop(columns=["sex", "age", "view"]), before.drop(columns="view")
    )


def test_files_without_headers_add_nothing(films, tmp_path):
    collection = sources.load("folder", films)
    assert add_headers(collection) is collection


def test_a_label_of_that_name_stays_a_label(tmp_path):
    touch(tmp_path / "a.dcm")
    labels = pd.DataFrame({"sex": [1.0]})
    table = study_table([tmp_path / "a.dcm"], labels)
    assert label_columns(table) == ["sex"]
    collection = Collection(table, tmp_path)
    assert add_headers(collection) is collection
    with pytest.raises(InputError, match="a label cannot be called 'sex'"):
        study_table([tmp_path / "a.dcm"], labels, sex=["F"])
