from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.chexpert import FINDINGS
from tests.support.closed import close
from tests.support.collections import touch
from tests.support.real_rows import real_rows, write_rows

FOLDER = "CheXpert-v1.0-small/"


def write(root, name, rows):
    """A CSV with its images, which lie below `root` without the collection's own folder."""
    write_rows(root / name, rows)
    touch(*(root / row["Path"].removeprefix(FOLDER) for row in rows))


@pytest.fixture
def root(tmp_path):
    rows = real_rows("chexpert_train.csv", 300)
    write(tmp_path / "chexpert", "train.csv", rows)
    valid = [
        row | {"Path": f"{FOLDER}valid/patient6454{i}/study1/view1_frontal.jpg"}
        for i, row in enumerate(rows[:3])
    ]
    write(tmp_path / "chexpert", "valid.csv", valid)
    return tmp_path / "chexpert"


def load(root, *args, **keys):
    return sources.load("chexpert", root, *args, **keys)


def test_real_rows_become_studies(root):
    raw = pd.read_csv(root / "train.csv")
    collection = load(root, uncertain="ignore", blank="ignore")
    train = collection.table[collection.table["split"] == "train"]
    assert label_columns(train) == list(raw.columns[5:]) == list(FINDINGS)
    np.testing.assert_array_equal(train[list(FINDINGS)], raw[list(FINDINGS)].replace(-1, np.nan))
    assert train["patient"].tolist() == [path.split("/")[2] for path in raw["Path"]]
    assert train["patient"].nunique() < len(train)
    views = [
        "Lateral" if s == "Lateral" else v for s, v in raw[["Frontal/Lateral", "AP/PA"]].values
    ]
    assert train["view"].tolist() == views
    assert set(views) == {"AP", "PA", "Lateral"}
    expected = [str(root / path.removeprefix(FOLDER)) for path in raw["Path"]]
    assert train["path"].tolist() == expected
    counts = {decision.policy: decision.counts for decision in collection.decisions}
    both = pd.concat([raw, pd.read_csv(root / "valid.csv")])
    uncertain = both[list(FINDINGS)].eq(-1).sum()
    assert counts["uncertain labels: ignore"] == uncertain[uncertain > 0].to_dict()


def test_defaults_of_the_configuration(root):
    conf = OmegaConf.load(Path(__file__).parents[2] / "conf/data/chexpert.yaml")
    keys = {key: conf[key] for key in conf if key not in ("source", "root", "labels")}
    pd.testing.assert_frame_equal(load(root, **keys).table, load(root).table)
    assert set(conf.labels) < set(FINDINGS)


def test_valid_is_the_test_split_until_the_test_set_is_there(root):
    assert load(root).table["split"].value_counts().to_dict() == {"train": 300, "test": 3}
    labels = dict.fromkeys(FINDINGS[1:], "0") | {"Enlarged Cardiomediastinum": "1"}
    images = [f"test/patient64741/study1/{v}.jpg" for v in ("view1_frontal", "view2_lateral")]
    write(root, "test_labels.csv", [{"Path": image} | labels for image in images])
    collection = load(root)
    table = collection.table.set_index("split")
    assert table.index.value_counts().to_dict() == {"train": 300, "val": 3, "test": 2}
    assert collection.decisions[0].counts == {
        "train.csv as train": 300,
        "valid.csv as val": 3,
        "test_labels.csv as test": 2,
    }
    assert table.loc["test", "view"].tolist() == ["Frontal", "Lateral"]
    assert table.loc["test", "No Finding"].isna().all()  # not in that table: unknown, not absent
    assert table.loc["test", "Enlarged Cardiomediastinum"].tolist() == [1, 1]
    assert table.loc["test", "Fracture"].tolist() == [0, 0]


def test_test_labels_by_study_go_to_each_of_its_images(root):
    images = ["study1/view1_frontal.jpg", "study1/view2_lateral.jpg", "study2/view1_frontal.jpg"]
    touch(*(root / "test/patient64741" / image for image in images))
    study = "CheXpert-v1.0/test/patient64741/study"
    lines = ["Study,Airspace Opacity,Edema", f"{study}1,1,0", f"{study}2,0,1"]
    (root / "groundtruth.csv").write_text("\n".join(lines))
    test = load(root, ["Edema", "Lung Opacity"]).table.query("split == 'test'")
    assert test[["Edema", "Lung Opacity"]].to_numpy().tolist() == [[0, 1], [0, 1], [1, 0]]
    assert test["view"].tolist() == ["Frontal", "Lateral", "Frontal"]
    assert [path.split("patient64741/")[1] for path in test["path"]] == images
    (root / "groundtruth.csv").write_text("\n".join([*lines, f"{study}9,0,1"]))
    with pytest.raises(InputError, match=r"images not on disk \(1 of 307\): .*study9/view1_front"):
        load(root, ["Edema"])


def test_the_folder_of_the_collection_may_lie_below_the_root(root):
    (root / FOLDER).mkdir()
    for part in ("train", "valid"):
        (root / part).rename(root / FOLDER / part)
    assert load(root).table["path"].str.startswith(str(root / FOLDER / "train")).sum() == 300


def test_policies_labels_and_views(root):
    collection = load(root, ["Edema"], ["PA"], uncertain="soft", soft_target=0.6)
    raw = pd.read_csv(root / "train.csv").query("`AP/PA` == 'PA'")
    np.testing.assert_array_equal(
        collection.table["Edema"], raw["Edema"].fillna(0).replace(-1, 0.6)
    )
    assert label_columns(collection.table) == ["Edema"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Edema", "Edma"), r"data=chexpert needs the column 'Edema'; .*did you mean 'Edma'"),
        (("AP/PA", "View"), r"needs the column 'AP/PA'; .*train.csv has the columns Path, "),
        (("Path,", "Image,"), r"needs the column 'Path'; .*train.csv"),
        (("-1.0", "maybe"), r"holds 'maybe' in row \d+ .*labels must be 1, 0, -1 or empty"),
        (("study2/view1", "view1"), r"'Path' holds .* in row 3 .*paths end in train\|valid\|test/"),
    ],
)
def test_a_csv_is_refused(root, change, message):
    file = root / "train.csv"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(InputError, match=message):
        load(root)


def test_bad_input(root, tmp_path_factory):
    with pytest.raises(InputError, match=r"data.labels must be one of .*did you mean 'Edema'"):
        load(root, ["Edma"])
    with pytest.raises(InputError, match=r"data.uncertain must be one of"):
        load(root, uncertain="drop")
    for wrong in (root.parent, root / "train", root / "train/patient00001"):
        told = rf"{wrong} holds no train.csv or .*, but there is {root}/train.csv; .*root={root}$"
        with pytest.raises(InputError, match=told):
            load(wrong)
    with pytest.raises(InputError, match=r"holds no train.csv or .*; check data.root "):
        load(tmp_path_factory.mktemp("empty"))
    (root / "valid.csv").unlink()
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(InputError, match="images listed more than once"):
        load(root)
    (root / "train.csv").write_text(text.splitlines()[0] + "\n")
    with pytest.raises(InputError, match="data=chexpert found no images in"):
        load(root)


def test_a_folder_that_may_not_be_entered_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "lost+found").mkdir()
    close(monkeypatch, "lost+found/")
    with pytest.raises(InputError, match=r"holds no train.csv or .*; check data.root "):
        load(tmp_path)
