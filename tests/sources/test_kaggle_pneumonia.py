import numpy as np
import pytest

from fluoroscope import sources
from fluoroscope.data.splits import assign_splits, check_splits
from fluoroscope.errors import InputError
from tests.support.collections import policies, touch

NAMES = {  # names as they are in the set, split and class
    "IM-0115-0001.jpeg": "train/NORMAL",
    "IM-0117-0001.jpeg": "train/NORMAL",
    "NORMAL2-IM-0383-0001.jpeg": "train/NORMAL",
    "person1_bacteria_1.jpeg": "train/PNEUMONIA",
    "person1_bacteria_2.jpeg": "train/PNEUMONIA",
    "person101_virus_187.jpeg": "train/PNEUMONIA",
    "NORMAL2-IM-1427-0001.jpeg": "val/NORMAL",
    "person1946_bacteria_4874.jpeg": "val/PNEUMONIA",
    "IM-0001-0001.jpeg": "test/NORMAL",
    "NORMAL2-IM-0117-0001.jpeg": "test/NORMAL",
    "person1_virus_6.jpeg": "test/PNEUMONIA",
    "person100_bacteria_475.jpeg": "test/PNEUMONIA",
}
SHARED = ["IM-0117-0001.jpeg", "person1_bacteria_1.jpeg", "person1_bacteria_2.jpeg"]


@pytest.fixture
def root(tmp_path):
    """The unpacked zip, with what it and a Mac leave beside the images."""
    root = tmp_path / "chest_xray"
    touch(*(root / folder / name for name, folder in NAMES.items()))
    touch(
        root / "train/NORMAL/.DS_Store",
        root / "__MACOSX/train/NORMAL/._IM-0115-0001.jpeg",
        root / "chest_xray/train/NORMAL/IM-0115-0001.jpeg",
        root / "chest_xray/test/NORMAL/IM-0001-0001.jpeg",
    )
    return root


def by_name(collection, column):
    table = collection.table
    return dict(zip(table["path"].str.rpartition("/")[2], table[column], strict=True))


def test_the_official_test_is_kept_and_its_patients_train_nothing(root):
    collection = sources.load("kaggle_pneumonia", root)
    splits = by_name(collection, "split")
    assert set(splits) == set(NAMES) - set(SHARED)
    assert {name for name, split in splits.items() if split == "test"} == {
        name for name, folder in NAMES.items() if folder.startswith("test")
    }
    assert set(splits.values()) == {"test", None}  # val is drawn anew
    assert [decision.counts for decision in collection.decisions] == [
        {"images": len(SHARED)},
        {"images": 2},  # of the second copy
        {"__macosx": 1, "hidden": 1},
    ]
    assert by_name(collection, "Pneumonia") == {
        name: float(NAMES[name].endswith("PNEUMONIA")) for name in splits
    }


def test_without_the_official_test_all_images_are_split_by_patient(root):
    collection = sources.load("kaggle_pneumonia", root, official_test=False)
    assert set(by_name(collection, "split").items()) == {(name, None) for name in NAMES}
    patients = by_name(collection, "patient")
    assert patients["person1_virus_6.jpeg"] == patients["person1_bacteria_2.jpeg"] == "person1"
    assert patients["NORMAL2-IM-0117-0001.jpeg"] == patients["IM-0117-0001.jpeg"] == "IM-0117"
    assert not policies(collection)


def test_another_pattern_may_tell_more_patients_apart(root):
    pattern = r"(person\d+_[a-z]+|NORMAL2-IM-\d+|IM-\d+)"
    collection = sources.load("kaggle_pneumonia", root, patient_pattern=pattern)
    assert set(by_name(collection, "split")) == set(NAMES)


def test_bacteria_and_viruses_are_labels_of_their_own(root):
    touch(root / "train/PNEUMONIA/person2000_3.jpeg")
    kinds = sources.load("kaggle_pneumonia", root, ["Viral", "Bacterial"], official_test=False)
    assert list(kinds.table.columns[-2:]) == ["Viral", "Bacterial"]
    viral, bacterial = by_name(kinds, "Viral"), by_name(kinds, "Bacterial")
    assert {name for name, is_viral in viral.items() if is_viral == 1} == {
        name for name in NAMES if "virus" in name
    }
    assert {name for name, is_bacterial in bacterial.items() if is_bacterial == 1} == {
        name for name in NAMES if "bacteria" in name
    }
    unnamed = viral.pop("person2000_3.jpeg"), bacterial.pop("person2000_3.jpeg")
    assert np.isnan(unnamed).all()
    assert {*viral.values(), *bacterial.values()} == {0.0, 1.0}


def test_the_folder_above_will_do_and_another_tree_will_not(root, tmp_path):
    (root.parent / "README.txt").touch()
    assert len(sources.load("kaggle_pneumonia", root.parent).table) == len(NAMES) - len(SHARED)
    touch(tmp_path / "other/NORMAL/1.png")
    with pytest.raises(InputError, match=r"other lacks the folders train and test, .*data=folder"):
        sources.load("kaggle_pneumonia", tmp_path / "other")


def test_the_splits_of_many_patients_do_not_leak(tmp_path):
    """As in the set: the numbers of train and test overlap, and val is far too small."""
    rng = np.random.default_rng(0)
    for split, first, count in (("train", 1, 120), ("val", 1940, 2), ("test", 80, 40)):
        for person in range(first, first + count):
            for image in range(rng.integers(1, 4)):
                name = f"person{person}_virus_{image}.jpeg"
                touch(tmp_path / split / "PNEUMONIA" / name)
                touch(tmp_path / split / "NORMAL" / f"IM-{person:04d}-{image:04d}.jpeg")
    table = sources.load("kaggle_pneumonia", tmp_path).table
    split = assign_splits(table, ["Pneumonia"])
    check_splits(split, ["Pneumonia"])
    sizes = split.groupby("split")["patient"].nunique()
    assert sizes["test"] == 80
    assert sizes["val"] == pytest.approx(0.15 * (2 * (80 + 2)), abs=2)
