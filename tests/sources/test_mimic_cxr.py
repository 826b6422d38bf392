import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.chexpert import FINDINGS
from tests.support.collections import policies, touch

# patient, study, image, view, split: two images of one study, two studies of one patient
IMAGES = [
    ("10000032", "50414267", "02aa804e-bde0", "PA", "train"),
    ("10000032", "50414267", "174413ec-4ec4", "LATERAL", "train"),
    ("10000032", "53189527", "2a2277a9-b0de", "", "train"),
    ("11000011", "51029426", "3a11cc01-ea90", "AP", "validate"),
    ("19999999", "58708861", "4b00dd02-ff00", "LL", "test"),
]
FINDING = {  # of a study: Edema, Fracture
    "50414267": ("1.0", "-1.0"),
    "53189527": ("", "0.0"),
    "51029426": ("-1.0", ""),
}


def write(root, name, header, rows):
    text = "\n".join([header, *(",".join(row) for row in rows), ""])
    with gzip.open(root / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
        file.write(text)


def write_labels(root, labeler="chexpert", found=FINDING, header=None):
    places = [FINDINGS.index("Edema"), FINDINGS.index("Fracture")]
    rows = []
    for study, values in found.items():
        cells = ["0.0"] * len(FINDINGS)
        for place, value in zip(places, values, strict=True):
            cells[place] = value
        rows.append(["1", study, *cells])
    write(root, labeler, header or ",".join(["subject_id", "study_id", *FINDINGS]), rows)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "mimic-cxr-jpg"
    for patient, study, image, *_ in IMAGES:
        touch(root / f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg")
    split = [(image, study, patient, split) for patient, study, image, _, split in IMAGES]
    write(root, "split", "dicom_id,study_id,subject_id,split", split)
    # in another order, as nothing says that the tables share one
    meta = [(image, patient, study, view, "2544") for patient, study, image, view, _ in IMAGES]
    write(root, "metadata", "dicom_id,subject_id,study_id,ViewPosition,Rows", reversed(meta))
    write_labels(root)
    return root


def load(root, *args, **keys):
    return sources.load("mimic_cxr", root, *args, **keys)


def test_images_take_the_labels_of_their_study(root):
    collection = load(root, ["Fracture", "Edema"], uncertain="soft", blank="zero")
    table = collection.table
    assert label_columns(table) == ["Fracture", "Edema"]
    np.testing.assert_array_equal(
        table[["Edema", "Fracture"]],
        [[1, 0.7], [1, 0.7], [0, 0], [0.7, 0], [np.nan, np.nan]],
    )
    assert table["patient"].tolist() == [row[0] for row in IMAGES]
    assert table["view"].tolist() == ["PA", "Lateral", None, "AP", "Lateral"]
    assert table["split"].tolist() == ["train", "train", "train", "val", "test"]
    image = "files/p10/p10000032/s50414267/174413ec-4ec4.jpg"
    assert table["path"][1] == str(root / image)
    assert [(decision.policy, decision.counts) for decision in policies(collection)] == [
        ("uncertain labels: soft (0.7)", {"Fracture": 2, "Edema": 1}),
        ("blank labels: zero", {"Fracture": 1, "Edema": 1}),
        ("studies without a row of the chexpert labeler: unknown", {"images": 1}),
    ]


def test_the_labeler_is_chosen(root):
    write_labels(root, "negbio", FINDING | {"53189527": ("1.0", "0.0")})
    assert load(root, ["Edema"]).table["Edema"][2] == 0
    assert load(root, ["Edema"], labeler="negbio").table["Edema"][2] == 1
    with pytest.raises(InputError, match=r"data.labeler must be one of chexpert, negbio; got 'ch'"):
        load(root, labeler="ch")


def test_unpacked_tables_and_the_defaults_of_the_configuration(root):
    packed = load(root).table
    for file in root.glob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    conf = OmegaConf.load(Path(__file__).parents[2] / "conf/data/mimic_cxr.yaml")
    keys = {key: conf[key] for key in conf if key not in ("source", "root")}
    pd.testing.assert_frame_equal(load(root, **keys).table, packed)
    assert label_columns(packed) == list(FINDINGS)


def test_views(root):
    assert load(root, ["Edema"], ["AP", "PA"]).table["view"].tolist() == ["PA", "AP"]


def test_bad_input(root):
    for wrong in (root.parent, root / "files", root / "files/p10"):
        told = rf"{wrong} holds no mimic-cxr-2.0.0-split.csv, but .*; set data.root={root}$"
        with pytest.raises(InputError, match=told):
            load(wrong)
    with pytest.raises(InputError, match="did you mean 'Edema'"):
        load(root, ["edma"])
    with pytest.raises(
        InputError, match=r"holds no mimic-cxr-2.0.0-negbio.csv \(did .*; check data.root "
    ):
        load(root, labeler="negbio")
    touch(root / "files/p19/p19999999/s58708861/4b00dd02-ff00.jpg")
    (root / "files/p19/p19999999/s58708861/4b00dd02-ff00.jpg").unlink()
    with pytest.raises(InputError, match=r"images not on disk \(1 of 5\): .*4b00dd02-ff00.jpg"):
        load(root)


@pytest.mark.parametrize(
    ("found", "header", "message"),
    [
        ({"1": ("maybe", "")}, None, r"column 'Edema' holds 'maybe' in row 2 .*1, 0, -1 or empty"),
        (FINDING, "subject_id,study," + ",".join(FINDINGS), r"'study_id'; .*mean 'study'"),
        (
            FINDING,
            "subject_id,study_id," + ",".join(FINDINGS).replace("Edema", "X"),
            "'Edema';",
        ),
    ],
)
def test_a_table_of_labels_is_refused(root, found, header, message):
    write_labels(root, found=found, header=header)
    with pytest.raises(InputError, match=message):
        load(root)


def test_rows_that_come_twice_and_unknown_splits_are_refused(root):
    rows = [(image, study, patient, split) for patient, study, image, _, split in IMAGES]
    write(root, "split", "dicom_id,study_id,subject_id,split", [*rows, rows[1]])
    with pytest.raises(
        InputError, match=r"'dicom_id' holds '174413ec-4ec4' in row 7 .*one row per"
    ):
        load(root)
    write(root, "split", "dicom_id,study_id,subject_id,split", [(*rows[0][:3], "odd")])
    with pytest.raises(InputError, match=r"'split' holds 'odd' in row 2 .*train, val, test"):
        load(root)
    write(root, "split", "dicom_id,study_id,subject_id,split", [])
    with pytest.raises(InputError, match="data=mimic_cxr found no images in"):
        load(root)
