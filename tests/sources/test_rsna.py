import json
from collections import Counter

import numpy as np
import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import NOBODY, label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.rsna import BOXES, CLASSES, FURTHER, MAPPING
from tests.support.collections import policies, touch
from tests.support.real_rows import real_rows, write_rows

NOT_NORMAL = "No Lung Opacity / Not Normal"


def write(root, rows):
    write_rows(root / BOXES, rows)
    touch(*(root / f"stage_2_train_images/{row['patientId']}.dcm" for row in rows))
    return root


def box(image, target, x=""):
    return dict.fromkeys(("x", "y", "width", "height"), x) | {"patientId": image, "Target": target}


@pytest.fixture
def root(tmp_path):
    boxes = [box("u1", "0"), box("u2", "1", "5"), box("u2", "1", "9"), box("u3", "0")]
    root = write(tmp_path / "rsna", boxes)
    classes = [("u2", "Lung Opacity"), ("u2", "Lung Opacity"), ("u1", "Normal"), ("u3", NOT_NORMAL)]
    write_rows(root / CLASSES, [{"patientId": i, "class": c} for i, c in classes])
    return root


def write_mapping(root, names):
    rows = [
        {"subset_img_id": image, "img_id": name, "orig_labels": ["Infiltration"]}
        for image, name in names.items()
    ]
    (root / MAPPING).write_text(json.dumps(rows))


def load(root, *args, **keys):
    return sources.load("rsna", root, *args, **keys)


def test_boxes_become_one_row_an_image(root):
    collection = load(root)
    table = collection.table
    assert label_columns(table) == ["Lung Opacity"]
    assert table["Lung Opacity"].tolist() == [0, 1, 0]
    files = [f"stage_2_train_images/u{i}.dcm" for i in (1, 2, 3)]
    assert table["path"].tolist() == [str(root / file) for file in files]
    assert table["view"].isna().all()
    assert table["split"].isna().all()
    assert [(decision.policy, decision.counts) for decision in policies(collection)] == [
        ("Lung Opacity: present if an image has a box", {"boxes": 2, "images with a box": 1}),
        ("patients unknown: every image counts as a separate patient", {"images": 3}),
    ]


def test_detailed_classes(root):
    table = load(root, [NOT_NORMAL, "Normal", "Lung Opacity"]).table
    assert table[["Lung Opacity", *FURTHER]].to_numpy().tolist() == np.eye(3)[[1, 0, 2]].tolist()
    write_rows(root / CLASSES, [{"patientId": "u1", "class": "Normal"}])
    np.testing.assert_array_equal(load(root, ["Normal"]).table["Normal"], [1, np.nan, np.nan])
    (root / CLASSES).unlink()
    with pytest.raises(InputError, match=r"data.labels must be one of Lung Opacity; got 'Normal'"):
        load(root, ["Normal"])


def test_patients_are_those_of_nih_by_the_mapping(root):
    names = {"u1": "00013774_026.png", "u2": "00000003_000.png", "u3": "00013774_002.png"}
    write_mapping(root, names | {"of the test set": "00000001_000.png"})
    collection = load(root)
    assert collection.table["patient"].tolist() == ["13774", "3", "13774"]
    assert collection.patients_of == "nih14"  # their numbers can be compared with those of NIH
    assert collection.decisions[1].counts == {"patients": 2}
    (root / MAPPING).unlink()
    collection = load(root)
    assert collection.patients_of == NOBODY
    assert collection.table["patient"].nunique() == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot read .*2018.json: it must be a list of subset_img_id and img_id"),
        ('{"a": 1}', "cannot read .*2018.json"),
        ('[{"subset_img_id": "u1"}]', "cannot read .*2018.json"),
        ('[{"subset_img_id": "u1", "img_id": "x.png"}]', "cannot read .*2018.json"),
        (
            '[{"subset_img_id": "u1", "img_id": "00000001_000.png"}]',
            "2018.json lacks 2 of 3 images, such as u2; .*or remove it",
        ),
    ],
)
def test_a_mapping_is_refused(root, text, message):
    (root / MAPPING).write_text(text)
    with pytest.raises(InputError, match=message):
        load(root)


def test_real_rows_agree_with_a_count_by_hand(tmp_path):
    rows = real_rows("kaggle_stage_2_train_labels.csv", 500)
    rows.pop()  # the last image may have had one more box
    table = load(write(tmp_path, rows)).table
    images = Counter(row["patientId"] for row in rows)
    ill = {row["patientId"] for row in rows if row["x"]}
    assert len(table) == len(images) < len(rows)
    names = [path.split("/")[-1].removesuffix(".dcm") for path in table["path"]]
    assert names == list(images)
    assert table["Lung Opacity"].tolist() == [name in ill for name in names]
    assert len(ill) > 50


def test_bad_input(root):
    for wrong in (root.parent, root / "stage_2_train_images"):
        with pytest.raises(
            InputError, match=rf"holds no {BOXES} or .*, but .*; set data.root={root}$"
        ):
            load(wrong)
    good = (root / BOXES).read_text()
    for change, message in (
        (("patientId", "image"), r"needs the column 'patientId'; .*stage_2_train_labels.csv"),
        ((",0\n", ",2\n"), r"'Target' holds '2' in row 2 .*labels must be 1"),
        (("9,9,9,9,u2,1", "9,9,9,9,u2,0"), r"'patientId' holds 'u2' in row 4 .*the same Target"),
    ):
        (root / BOXES).write_text(good.replace("\r", "").replace(*change))
        with pytest.raises(InputError, match=message):
            load(root)
    (root / BOXES).write_text(good)
    with pytest.raises(InputError, match="records no views"):
        load(root, views=["PA"])
    for row, message in (
        ({"patientId": "u1", "class": "Nomal"}, r"'class' holds 'Nomal' in row 2 .*; classes are"),
        (
            {"patientId": "u1", "class": NOT_NORMAL},
            r"'patientId' holds 'u1' in row 2 .*the same class",
        ),
    ):
        write_rows(root / CLASSES, [row, {"patientId": "u1", "class": "Normal"}])
        with pytest.raises(InputError, match=message):
            load(root)
