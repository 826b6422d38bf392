from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from tests.support.collections import policies, touch
from tests.support.real_rows import real_rows, write_rows

FINDINGS = ["Cardiomegaly", "Nodule/Mass", "Other diseases"]
VOTES = {  # of the three readers of an image: Cardiomegaly, Nodule/Mass, Other diseases
    "a1": [(1, 0, 0), (1, 0, 1), (0, 0, 0)],
    "b2": [(0, 0, 0), (0, 0, 0), (1, 0, 0)],
    "c3": [(1, 1, 0), (1, 1, 0), (1, 0, 0)],
}


@pytest.fixture
def root(tmp_path):
    """The tree of PhysioNet: rows of a reader, and of the panel under another name of a column."""
    root = tmp_path / "vindr-cxr"
    rows = [
        {"image_id": image, "rad_id": f"R{n}"} | dict(zip(FINDINGS, map(str, votes), strict=True))
        for n in range(3)
        for image, readers in VOTES.items()
        for votes in [readers[n]]
    ]
    write_rows(root / "annotations/image_labels_train.csv", rows)
    panel = {"image_id": "d4", "Cardiomegaly": "0", "Nodule/Mass": "1", "Other disease": "1"}
    write_rows(root / "annotations/image_labels_test.csv", [panel])
    touch(*(root / f"train/{image}.dicom" for image in VOTES), root / "test/d4.dicom")
    return root


def load(root, *args, **keys):
    return sources.load("vindr", root, *args, **keys)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ("majority", [[1, 0, 0], [0, 0, 0], [1, 1, 0]]),
        ("any", [[1, 0, 1], [1, 0, 0], [1, 1, 0]]),
        ("mean", [[2 / 3, 0, 1 / 3], [1 / 3, 0, 0], [1, 2 / 3, 0]]),
    ],
)
def test_votes_become_labels(root, votes, expected):
    collection = load(root, votes=votes)
    table = collection.table
    assert label_columns(table) == FINDINGS
    np.testing.assert_allclose(table[FINDINGS], [*expected, [0, 1, 1]])
    assert table["split"].tolist() == ["train"] * 3 + ["test"]
    files = ["train/a1.dicom", "train/b2.dicom", "train/c3.dicom", "test/d4.dicom"]
    assert table["path"].tolist() == [str(root / file) for file in files]
    assert table["patient"].nunique() == 4
    differing = {"Cardiomegaly": 2, "Nodule/Mass": 1, "Other diseases": 1}
    assert [(decision.policy, decision.counts) for decision in policies(collection)] == [
        ("patients unknown: every image counts as a separate patient", {"images": 4}),
        (f"findings on which the readers disagree: {votes}", differing),
    ]


def test_a_blank_cell_is_no_vote(root):
    file = root / "annotations/image_labels_train.csv"
    cells = pd.read_csv(file, dtype=str)
    cells.loc[cells["image_id"] == "a1", "Cardiomegaly"] = ["1", "", ""]
    cells.loc[cells["image_id"] == "b2", "Cardiomegaly"] = ""
    cells.to_csv(file, index=False)
    found = load(root, ["Cardiomegaly"]).table["Cardiomegaly"]
    np.testing.assert_array_equal(found, [1, np.nan, 1, 0])


def test_defaults_of_the_configuration_and_other_suffixes(root):
    conf = OmegaConf.load(Path(__file__).parents[2] / "conf/data/vindr.yaml")
    (root / "train/a1.dicom").rename(root / "train/a1.png")
    table = load(root, ["Cardiomegaly"], votes=conf.votes).table
    pd.testing.assert_frame_equal(load(root, ["Cardiomegaly"]).table, table)
    assert table["path"][0] == str(root / "train/a1.png")


def test_real_rows_of_kaggle_agree_with_a_count_by_hand(tmp_path):
    every = real_rows("vinbigdata-train.csv", 70_000)
    images = list(dict.fromkeys(row["image_id"] for row in every if row["class_id"] != "14"))[:50]
    images += list(dict.fromkeys(row["image_id"] for row in every))[:30]
    rows = [row for row in every if row["image_id"] in images]
    write_rows(tmp_path / "train.csv", rows)
    touch(*(tmp_path / f"train/{image}.dicom" for image in images))
    seen = defaultdict(set)  # readers by image and finding
    for row in rows:
        seen[row["image_id"], row["class_name"]].add(row["rad_id"])
    for votes, needed in (("any", 1), ("majority", 2)):
        collection = load(tmp_path, votes=votes)
        table = collection.table
        assert len(table) == len(set(images))
        for label in label_columns(table):
            ids = [Path(path).stem for path in table["path"]]
            assert table[label].tolist() == [len(seen[i, label]) >= needed for i in ids]
    conf = OmegaConf.load(Path(__file__).parents[2] / "conf/data/vindr.yaml")
    assert {*conf.labels, "No finding"} == {row["class_name"] for row in every}
    assert table["split"].isna().all()
    shares = load(tmp_path, ["Cardiomegaly"], votes="mean").table["Cardiomegaly"]
    assert shares.tolist() == pytest.approx([len(seen[i, "Cardiomegaly"]) / 3 for i in ids])


def test_bad_input(root):
    for wrong in (root.parent, root / "annotations", root / "train"):
        with pytest.raises(InputError, match=rf"but there is .*; set data.root={root}$"):
            load(wrong)
    with pytest.raises(
        InputError, match=r"data.votes must be one of any, majority, mean; got 'me'"
    ):
        load(root, votes="me")
    with pytest.raises(InputError, match=r"data.labels must be one of .*mean 'Cardiomegaly'"):
        load(root, ["cardiomegali"])
    file = root / "annotations/image_labels_train.csv"
    good = file.read_text()
    for text, message in (
        (good.replace("image_id", "image"), r"'image_id'; .*did you mean 'image'"),
        (
            good.replace("a1,R0,1", "a1,R0,2"),
            r"'Cardiomegaly' holds '2' in row 2 .*labels must be 1",
        ),
        (good + "a1,R0,1,0,0\n", r"'image_id' holds 'a1' in row 11 .*one row per image and reader"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            load(root)
    file.write_text(good)
    (root / "train/b2.dicom").unlink()
    with pytest.raises(InputError, match=r"images not on disk \(1 of 4\): .*train/b2.dicom"):
        load(root)
    file.write_text(good.splitlines()[0] + "\n")
    (root / "annotations/image_labels_test.csv").unlink()
    with pytest.raises(InputError, match="data=vindr found no images"):
        load(root)
