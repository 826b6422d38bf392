import hashlib
import sys

import cv2
import medmnist
import numpy as np
import pytest
from medmnist.info import INFO

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.medmnist import FINDINGS, SIZES_PX

COUNTS = {"train": 6, "val": 3, "test": 4}


def arrays(size_px=28, findings=1, seed=0):
    """The arrays of a file as MedMNIST keeps them."""
    rng = np.random.default_rng(seed)
    held = {}
    for split, count in COUNTS.items():
        held[f"{split}_images"] = rng.integers(0, 256, (count, size_px, size_px), np.uint8)
        held[f"{split}_labels"] = rng.integers(0, 2, (count, findings), np.uint8)
    return held


@pytest.fixture
def root(tmp_path):
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays())
    np.savez_compressed(tmp_path / "chestmnist_64.npz", **arrays(64, 14))
    return tmp_path


@pytest.mark.parametrize(("flag", "size_px"), [("pneumoniamnist", 28), ("chestmnist", 64)])
def test_pixels_and_labels_are_those_of_the_package(root, flag, size_px):
    """The independent route is the package's own class on the same file."""
    collection = sources.load("medmnist", root, flag=flag, size_px=size_px)
    table = collection.table
    assert len(table) == sum(COUNTS.values())
    labels = label_columns(table)
    for split in COUNTS:
        theirs = getattr(medmnist, INFO[flag]["python_class"])(split, root=root, size=size_px)
        ours = table[table["split"] == split]
        assert len(ours) == len(theirs.labels)
        np.testing.assert_array_equal(ours[labels], theirs.labels)
        for path, image in zip(ours["path"], theirs.imgs, strict=True):
            np.testing.assert_array_equal(cv2.imread(path, cv2.IMREAD_UNCHANGED), image)
    assert [decision.counts for decision in collection.decisions] == [{"images": 13}]


@pytest.mark.parametrize("flag", FINDINGS)
def test_names_of_labels_and_sizes_are_the_package_s(flag):
    theirs = [
        name.replace("pleural", "pleural_thickening") for name in INFO[flag]["label"].values()
    ]
    ours = [name.lower() for name in FINDINGS[flag]]
    assert ours == (theirs if len(theirs) > 2 else theirs[1:])
    assert list(SIZES_PX) == medmnist.PneumoniaMNIST.available_sizes


def test_images_are_written_once_and_gone_on_with(root):
    folder = root / "pneumoniamnist_28"
    first = sources.load("medmnist", root, size_px=28).table
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert len(times) == len(first)
    (folder / "studies.csv").unlink()  # as after an interruption
    (folder / "val/000001.png").unlink()
    assert sources.load("medmnist", root, size_px=28).table.equals(first)
    again = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert {path for path in times if again[path] != times[path]} == {folder / "val/000001.png"}
    (root / "pneumoniamnist.npz").unlink()  # not needed any more
    assert sources.load("medmnist", root, size_px=28).table.equals(first)
    assert not [path for path in folder.rglob("*") if path.suffix not in (".png", ".csv", "")]


def test_a_file_is_downloaded_and_checked(tmp_path, monkeypatch):
    np.savez(tmp_path / "theirs", **arrays(64))
    theirs = tmp_path / "theirs.npz"
    info = {"url_64": theirs.as_uri(), "MD5_64": hashlib.md5(theirs.read_bytes()).hexdigest()}
    monkeypatch.setitem(INFO, "pneumoniamnist", info)
    root = tmp_path / "new"
    assert len(sources.load("medmnist", root, size_px=64).table) == 13
    assert (root / "pneumoniamnist_64.npz").read_bytes() == theirs.read_bytes()
    info["MD5_64"] = "0" * 32
    with pytest.raises(InputError, match=r"the file from .* is damaged"):
        sources.load("medmnist", tmp_path / "newer", size_px=64)
    assert not list((tmp_path / "newer").iterdir())


def test_without_network_or_package_it_says_where_the_file_belongs(tmp_path, monkeypatch):
    monkeypatch.setitem(INFO["pneumoniamnist"], "url_224", "http://127.0.0.1:9/x.npz")
    told = rf"there is no {tmp_path}/pneumoniamnist_224.npz, and it cannot be downloaded .*:9/x.npz"
    with pytest.raises(InputError, match=told):
        sources.load("medmnist", tmp_path)
    monkeypatch.setitem(sys.modules, "medmnist.info", None)
    with pytest.raises(InputError, match=r"or run pip install medmnist"):
        sources.load("medmnist", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"val_images": np.zeros((3, 28, 28, 3), np.uint8)},
            "val_images must be uint8 .*3, 28, 28, 3",
        ),
        ({"val_images": np.zeros((3, 28, 28))}, "val_images must be uint8 .* float64"),
        ({"val_images": np.zeros((2, 28, 28), np.uint8)}, "val_images must be uint8 .*2, 28, 28"),
        ({"val_labels": np.zeros((3, 14), np.uint8)}, "val_labels must be .*N, 1"),
        ({"val_labels": np.full((3, 1), 2, np.uint8)}, "val_labels must be .*0 and 1"),
        ({"val_labels": np.array([[None]] * 3)}, "Object arrays cannot be loaded"),
        ({"val_labels": None}, "no item named 'val_labels.npy'"),
    ],
)
def test_another_file_is_refused(tmp_path, changes, message):
    held = {name: array for name, array in (arrays() | changes).items() if array is not None}
    np.savez(tmp_path / "pneumoniamnist.npz", **held)
    with pytest.raises(InputError, match=message):
        sources.load("medmnist", tmp_path, size_px=28)
    assert not (tmp_path / "pneumoniamnist_28/studies.csv").exists()


def test_a_damaged_file_is_refused(tmp_path):
    np.savez(tmp_path / "whole", **arrays())
    whole = (tmp_path / "whole.npz").read_bytes()
    for part in (b"", whole[:2000], b"no zip"):
        (tmp_path / "pneumoniamnist.npz").write_bytes(part)
        with pytest.raises(InputError, match=r"cannot read .*pneumoniamnist.npz"):
            sources.load("medmnist", tmp_path, size_px=28)


def test_sizes_and_labels_that_are_not_there_are_refused(root):
    with pytest.raises(InputError, match=r"data.size_px must be one of 28, 64, 128, 224; got 100"):
        sources.load("medmnist", root, size_px=100)
    with pytest.raises(InputError, match=r"data.labels must be one of Pneumonia; got 'Mass'"):
        sources.load("medmnist", root, ["Mass"], size_px=28)


def test_labels_that_inflate_to_gigabytes_are_refused(tmp_path):
    """An array that deflates to a thousandth."""
    held = arrays() | {"train_labels": np.zeros((100 * 2**20, 1), np.uint8)}
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **held)
    with pytest.raises(InputError, match="train_labels inflate to more than 64 MiB"):
        sources.load("medmnist", tmp_path, flag="pneumoniamnist", size_px=28)
