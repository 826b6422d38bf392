import gzip
import warnings
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from fluoroscope import sources
from fluoroscope.errors import InputError
from tests.support.collections import policies, touch

REAL = (
    Path(str(find_spec("torchxrayvision").origin)).parent
    / "data/siim-pneumothorax-train-rle.csv.gz"
)
UID = "1.2.276.0.7230010.3.1.4.8323329.{}.1517875201.850819"


def write_dicom(path, **elements):
    """A header with no pixels, as much as is read of it."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = UID.format(1)
    for name, value in elements.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_tree(root, uids, **elements):
    for number, uid in enumerate(uids):
        own = {"PatientID": f"P{number // 2}", "ViewPosition": "AP" if number % 3 else "PA"}
        write_dicom(root / f"dicom-images-train/{uid}s/{uid}v/{uid}.dcm", **(own | elements))


@pytest.fixture(scope="module")
def real_rows():
    with gzip.open(REAL, "rt") as file:
        return list(islice(file, 61))


def test_real_rows_and_headers_become_studies(tmp_path, real_rows):
    (tmp_path / "train-rle.csv").write_text("".join(real_rows))
    raw = pd.read_csv(tmp_path / "train-rle.csv")
    uids = list(dict.fromkeys(raw["ImageId"]))
    write_tree(tmp_path, uids)
    touch(tmp_path / f"masks/{uids[0]}.png", tmp_path / "dicom-images-test/1/2/other.dcm")
    collection = sources.load("siim_pneumothorax", tmp_path)
    table = collection.table
    assert [Path(path).name for path in table["path"]] == [f"{uid}.dcm" for uid in uids]
    masks = raw[raw[" EncodedPixels"].str.strip() != "-1"]["ImageId"].unique()
    assert 0 < len(masks) < len(uids)
    np.testing.assert_array_equal(table["Pneumothorax"], [uid in masks for uid in uids])
    assert table["patient"].tolist() == [f"P{number // 2}" for number in range(len(uids))]
    assert table["view"].tolist()[:4] == ["PA", "AP", "AP", "PA"]
    assert table["split"].isna().all()
    assert not policies(collection)


def test_all_real_rows_become_images(tmp_path):
    """12,954 rows are 12,047 images; some have a mask in each of several rows."""
    (tmp_path / "train-rle.csv.gz").symlink_to(REAL)
    with pytest.raises(InputError, match=r"images not on disk \(12047 of 12047\)"):
        sources.load("siim_pneumothorax", tmp_path)


@pytest.mark.parametrize("header", ["ImageId, EncodedPixels", "ImageId,EncodedPixels"])
def test_several_rows_of_an_image_are_one_study(tmp_path, header):
    (tmp_path / "stage_2_train.csv").write_text(f"{header}\nA,-1\nB, -1\nC, -1\nB,7 8\n")
    for name in "ABC":
        write_dicom(tmp_path / f"stage_2_images/{name}.dcm", PatientID="" if name == "C" else "P1")
    collection = sources.load("siim_pneumothorax", tmp_path)
    assert collection.table["Pneumothorax"].tolist() == [0, 1, 0]
    assert collection.table["patient"].tolist() == ["P1", "P1", "C"]
    assert [decision.counts for decision in policies(collection)] == [{"images": 1}]


def test_the_png_copy_has_a_test_split(tmp_path):
    for part, has in (("train", [0, 1]), ("test", [1])):
        rows = [f"{i}_{part}_{y}_.png,{UID.format(i)},{y}" for i, y in enumerate(has)]
        text = "\n".join(["new_filename,ImageId,has_pneumo", *rows])
        (tmp_path / f"stage_1_{part}_images.csv").write_text(text)
        touch(*(tmp_path / "png_images" / row.split(",")[0] for row in rows))
    touch(tmp_path / "png_masks/0_train_0_.png")
    collection = sources.load("siim_pneumothorax", tmp_path)
    assert collection.table["Pneumothorax"].tolist() == [0, 1, 1]
    assert collection.table["split"].tolist() == [None, None, "test"]
    assert [decision.counts for decision in policies(collection)] == [{"images": 3}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ImageId,Mask\nA,-1\n", "needs the column 'EncodedPixels'; .* ImageId, Mask"),
        ("ImageId, EncodedPixels\nA,\n", "column ' EncodedPixels' holds '' in row 2 .* has -1"),
    ],
)
def test_a_csv_is_refused(tmp_path, text, message):
    (tmp_path / "train-rle.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        sources.load("siim_pneumothorax", tmp_path)


def test_a_folder_without_a_csv_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no train-rle.csv or stage_2_train.csv"):
        sources.load("siim_pneumothorax", tmp_path)


def test_damaged_headers_tell_no_patient_and_stop_nothing(tmp_path):
    """The check of all images, which comes later, names such files."""
    names = [f"{number:03d}" for number in range(200)]
    rows = [f"{name},-1" for name in names]
    (tmp_path / "train-rle.csv").write_text("\n".join(["ImageId, EncodedPixels", *rows]))
    write_dicom(tmp_path / "whole", PatientID="P1", ViewPosition="PA")
    whole = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(0)
    for name in names:
        damaged = bytearray(whole[: rng.integers(1, len(whole))])
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / f"{name}.dcm").write_bytes(damaged)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = sources.load("siim_pneumothorax", tmp_path).table
    quotes = [str(warning.message) for warning in said if "Invalid value" in str(warning.message)]
    assert not quotes  # of what is in the header
    assert len(table) == len(names)
    assert table["patient"].isin(names).sum() > len(names) / 2
