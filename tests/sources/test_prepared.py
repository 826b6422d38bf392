"""The copy of a collection as a source, and the copies that are refused."""

import json
import os

import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError
from fluoroscope.sources import prepared

LABELS = ["Edema", "Mass"]


@pytest.fixture
def copy(tmp_path):
    """Four images, two labels, as `scripts/prepare.py` leaves them."""
    rows = {
        "path": [f"images/0{i}/{i}.png" for i in range(4)],
        "patient": ["007", "b", "b", "c"],
        "split": ["test", None, None, "train"],
        "view": ["PA", None, "AP", "PA"],
        "source": ["chexpert"] * 4,
        "Edema": [1, 0.7, None, 0],
        "Mass": [0.0, 0, 1, 1],
    }
    table = pd.DataFrame(rows)
    for name in table["path"]:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    table.to_parquet(tmp_path / "studies.parquet")
    about = {"version": 1, "finished": True, "labels": LABELS, "patients_of": "chexpert"}
    about |= {"decisions": [{"policy": "uncertain labels: soft", "counts": {"Edema": 1}}]}
    write(tmp_path, about, finish=True)
    return tmp_path


def write(copy, about, finish=False):
    if finish:
        content = (copy / "studies.parquet").read_bytes()
        about = {**about, "studies_sha256": prepared.sha256(content).hexdigest()}
    (copy / "prepared.json").write_text(json.dumps(about))


def change(copy, **values):
    write(copy, {**json.loads((copy / "prepared.json").read_text()), **values})


def test_rows_are_those_of_the_copy(copy):
    collection = sources.load("prepared", copy)
    table = collection.table
    assert list(table.columns) == ["path", "patient", "split", "view", *LABELS]
    assert table["path"].tolist() == [str(copy / f"images/0{i}/{i}.png") for i in range(4)]
    assert table["patient"].tolist() == ["007", "b", "b", "c"]
    assert table["split"].tolist() == ["test", None, None, "train"]
    assert table["view"].tolist() == ["PA", None, "AP", "PA"]
    assert table["Edema"].isna().tolist() == [False, False, True, False]
    assert table["Edema"][:2].tolist() == [1, 0.7]
    assert collection.decisions == (Decision("uncertain labels: soft", {"Edema": 1}),)
    assert (collection.root, collection.patients_of) == (copy, "chexpert")


def test_labels_and_views_are_chosen_as_ever(copy):
    table = sources.load("prepared", copy, labels=["Mass"], views=["AP"]).table
    assert list(table.columns[4:]) == ["Mass"]
    assert table["patient"].tolist() == ["b"]
    with pytest.raises(InputError, match=r"data\.labels must be one of Edema, Mass; got 'Hernia'"):
        sources.load("prepared", copy, labels=["Hernia"])


def test_a_copy_is_moved_as_a_whole(copy, tmp_path):
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    os.rename(copy, moved)
    paths = sources.load("prepared", moved).table["path"]
    assert all(path.startswith(str(moved)) for path in paths)


def alter(copy):
    table = pd.read_parquet(copy / "studies.parquet")
    table.assign(Mass=1.0).to_parquet(copy / "studies.parquet")


REFUSED = {
    "no copy": (
        lambda c: (c / "prepared.json").unlink(),
        "is not a copy made by fluoroscope",
    ),
    "unfinished": (
        lambda c: change(c, finished=False),
        "is not finished; run the same python scripts/prepare.py command",
    ),
    "damaged": (lambda c: (c / "prepared.json").write_text('{"ver'), "cannot read .*prepared.json"),
    "no object": (lambda c: (c / "prepared.json").write_text("[]"), "cannot read .*prepared.json"),
    "keys gone": (lambda c: (c / "prepared.json").write_text("{}"), "cannot read .*prepared.json"),
    "other version": (
        lambda c: change(c, version=2),
        "has version 2, but this program reads version 1",
    ),
    "table changed": (alter, r"is damaged or was changed"),
    "no table": (lambda c: (c / "studies.parquet").unlink(), "cannot read .*studies.parquet"),
    "image gone": (lambda c: (c / "images/02/2.png").unlink(), "images not on disk"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_whole_copy_is_refused(copy, case):
    harm, told = REFUSED[case]
    harm(copy)
    with pytest.raises(InputError, match=told) as error:
        sources.load("prepared", copy)
    assert "\n" not in str(error.value)


def test_missing_images_can_be_left_out(copy):
    (copy / "images/02/2.png").unlink()
    collection = sources.load("prepared", copy, on_missing="skip")
    assert collection.table["patient"].tolist() == ["007", "b", "c"]
    assert collection.decisions[-1].counts == {"images": 1}


@pytest.mark.parametrize(
    "values",
    [
        *({name: None} for name in ("labels", "decisions", "studies_sha256", "version")),
        *({"labels": 5}, {"labels": [1]}, {"labels": ["Edema", "Gone"]}, {"source": ["a"]}),
        *({"decisions": [{}]}, {"decisions": [["a", {}]]}, {"decisions": [{"policy": "a"}]}),
        *({"patients_of": 7}, {"label_map": "Edema"}, {"studies_sha256": 12}, {"version": "1"}),
    ],
)
def test_an_entry_of_another_type_is_damage(copy, values):
    change(copy, **values)
    with pytest.raises(
        InputError, match=r"prepared\.json .*; run python scripts/prepare\.py again"
    ):
        prepared.read(copy)


@pytest.mark.parametrize(
    "entry", ["labels", "decisions", "patients_of", "studies_sha256", "version"]
)
def test_a_missing_entry_is_damage(copy, entry):
    about = json.loads((copy / "prepared.json").read_text())
    del about[entry]
    write(copy, about)
    with pytest.raises(
        InputError, match=r"prepared\.json .*; run python scripts/prepare\.py again"
    ):
        prepared.read(copy)
