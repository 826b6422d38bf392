import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.padchest import CSV, FINDINGS
from tests.support.collections import policies, touch
from tests.support.real_rows import real_rows, write_rows

# Labels, Projection, MethodLabel
ROWS = [
    ("['pleural effusion', ' pneumonia', '']", "PA", "Physician"),
    ("['normal']", "L", "RNN_model"),
    ("['unchanged', 'nodule']", "AP_horizontal", "Physician"),
    ("['unchanged']", "AP", "RNN_model"),
    ("nan", "UNK", "RNN_model"),
    ("['']", "COSTAL", "Physician"),
    ("[]", "PA", "Physician"),
    ("['exclude']", "PA", "Physician"),
    ("['nodule', ' suboptimal study']", "PA", "Physician"),
    ("['nodule']", "EXCLUDE", "Physician"),
    ("['multiple nodules', 'laminar atelectasis', 'Chilaiditi sign']", "PA", "Physician"),
]
LABELS = ["pneumonia", "pleural effusion", "nodule"]
KEPT = [0, 1, 2, 3, 4, 5, 6, 10]


def write(root, rows=ROWS, folder=lambda i: str(i % 3)):
    """The table with its images, ten in each of the folders 0, 1, 2."""
    table = [
        {
            "": str(i),
            "ImageID": f"{i}_a.png",
            "ImageDir": str(i % 3),
            "PatientID": f"p{i // 2}",
            "Projection": projection,
            "MethodLabel": method,
            "Report": "sin cambios, ver\nprevio",
            "Labels": labels,
        }
        for i, (labels, projection, method) in enumerate(rows)
    ]
    write_rows(root / CSV, table)
    touch(*(root / folder(i) / f"{i}_a.png" for i in range(len(rows))))
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "padchest")


def load(root, *args, **keys):
    return sources.load("padchest", root, *args, **keys)


def numbers(collection):
    return [int(Path(path).name.split("_")[0]) for path in collection.table["path"]]


def test_rows_by_hand(root):
    collection = load(root, LABELS)
    assert numbers(collection) == KEPT
    unknown = [np.nan] * 3
    np.testing.assert_array_equal(
        collection.table[LABELS],
        [
            [1, 1, 0],
            [0, 0, 0],
            [np.nan, np.nan, 1],  # beside 'unchanged' only what is named is known
            *[unknown] * 4,
            [0, 0, 0],  # names are whole: 'multiple nodules' is not 'nodule'
        ],
    )
    assert collection.table["patient"].tolist() == [f"p{i // 2}" for i in KEPT]
    assert collection.table["view"].tolist() == [
        *("PA", "Lateral", "AP_horizontal", "AP", None, "COSTAL", "PA", "PA")
    ]
    assert [(decision.policy, decision.counts) for decision in policies(collection)] == [
        ("images left out", {"exclude": 2, "suboptimal study": 1}),
        (
            "findings not named with 'unchanged': ignore",
            {"pneumonia": 2, "pleural effusion": 2, "nodule": 1},
        ),
        ("images without any label: unknown", {"images": 3}),
    ]


def test_keys(root):
    zero = load(root, LABELS, unchanged="zero").table
    assert zero.loc[[2, 3], LABELS].to_numpy().tolist() == [[0, 0, 1], [0, 0, 0]]
    assert zero.loc[[4, 5, 6], LABELS].isna().all(axis=None)
    assert numbers(load(root, LABELS, leave_out=[])) == list(range(11))
    assert numbers(load(root, LABELS, leave_out=["nodule"])) == [0, 1, 3, 4, 5, 6, 7, 10]
    physicians = load(root, LABELS, labelled_by="physician")
    assert numbers(physicians) == [0, 2, 5, 6, 10]
    assert physicians.decisions[0].counts["labelled by a network"] == 3
    other = load(root, ["normal", "Chilaiditi sign"], leave_out=[]).table
    assert other["normal"].sum() == other["Chilaiditi sign"].sum() == 1


def test_defaults_of_the_configuration(root):
    conf = OmegaConf.load(Path(__file__).parents[2] / "conf/data/padchest.yaml")
    keys = {key: conf[key] for key in conf if key not in ("source", "root")}
    default = load(root).table
    pd.testing.assert_frame_equal(load(root, **keys).table, default)
    assert label_columns(default) == list(FINDINGS)


@pytest.mark.parametrize("folder", ["images", ""])
def test_images_may_lie_in_one_folder(tmp_path, folder):
    root = write(tmp_path, folder=lambda i: folder)
    assert load(root, LABELS).table["path"][0] == str(root / folder / "0_a.png")


def test_real_rows_agree_with_a_count_by_hand(tmp_path):
    rows = real_rows(CSV, 1500)
    write_rows(tmp_path / CSV, rows)
    touch(*(tmp_path / "images" / row["ImageID"] for row in rows))
    collection = load(tmp_path, leave_out=[])
    table = collection.table
    cells = [[] if (c := row["Labels"]) == "nan" else ast.literal_eval(c) for row in rows]
    named = [{name.strip() for name in cell} - {""} for cell in cells]
    counts = Counter(name for names in named for name in names)
    assert table[list(FINDINGS)].eq(1).sum().to_dict() == {f: counts[f] for f in FINDINGS}
    assert sum(counts[finding] for finding in FINDINGS) > 500
    unknown = ["unchanged" in names or not names for names in named]
    for finding in ("pneumonia", "nodule"):
        expected = [
            finding in n or (np.nan if u else 0) for n, u in zip(named, unknown, strict=True)
        ]
        np.testing.assert_array_equal(table[finding], np.array(expected, float))
    assert table["patient"].tolist() == [row["PatientID"] for row in rows]
    views = Counter(row["Projection"] for row in rows)
    assert table["view"].value_counts()["Lateral"] == views["L"] > 100
    left = Counter(w for names in named for w in names if w in ("exclude", "suboptimal study"))
    assert load(tmp_path).decisions[0].counts == dict(left)


@pytest.mark.parametrize(
    "cell", ["['nodule'", "nodule", "['nodule' 'mass']", "[nodule]", "['a', 'b'] x", "['a]"]
)
def test_a_cell_of_labels_is_refused(tmp_path, cell):
    root = write(tmp_path, [*ROWS[:2], (cell, "PA", "Physician")])
    with pytest.raises(InputError, match=r"'Labels' holds .* in row 4 .*; labels are a list such"):
        load(root)


def test_bad_input(root):
    for wrong in (root.parent, root / "0"):
        with pytest.raises(
            InputError, match=rf"holds no {CSV} or .*, but .*; set data.root={root}$"
        ):
            load(wrong)
    message = r"data.labels contains 'plural effusion', but no image .*mean 'pleural effusion'"
    with pytest.raises(InputError, match=message):
        load(root, ["plural effusion"])
    with pytest.raises(InputError, match=r"data.leave_out contains 'exlude'.*mean 'exclude'"):
        load(root, leave_out=["exlude"])
    with pytest.raises(InputError, match=r"data.unchanged must be one of ignore, zero; got 'skip'"):
        load(root, unchanged="skip")
    with pytest.raises(InputError, match=r"data.labelled_by must be one of anyone, physician"):
        load(root, labelled_by="me")
    with pytest.raises(InputError, match=r"data.labels must be a list"):
        load(root, "nodule")
    with pytest.raises(InputError, match=r"data=padchest found no images"):
        load(write(root, ROWS[7:8]))
    (root / CSV).write_text((root / CSV).read_text().replace("PatientID", "Patient"))
    with pytest.raises(InputError, match=r"'PatientID'; .*did you mean 'Patient'"):
        load(root)
