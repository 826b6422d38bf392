import numpy as np
import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from tests.support.collections import policies, touch


def load_table(*args, **keys):
    return sources.load(*args, **keys).table


def write_csv(root, text, images=("a.png", "b.png", "c.png", "d.png")):
    touch(*(root / name for name in images))
    (root / "studies.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return {"root": root, "csv": "studies.csv", "path_column": "file"}


CSV = "file,who,part,view,Effusion,Edema\na.png,p1,Training,PA,1,0\nb.png,p1,,AP,,0.0\n"


def test_table_reads_cells(tmp_path):
    given = write_csv(tmp_path, CSV)
    table = load_table(
        "table",
        **given,
        labels=["Edema", "Effusion"],
        patient_column="who",
        split_column="part",
        view_column="view",
    )
    assert label_columns(table) == ["Edema", "Effusion"]
    np.testing.assert_array_equal(table[["Edema", "Effusion"]], [[0, 1], [0, np.nan]])
    assert table["path"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert table[["patient", "split", "view"]].to_numpy().tolist() == [
        ["p1", "train", "PA"],
        ["p1", None, "AP"],
    ]


def test_table_without_patients_and_root(tmp_path):
    write_csv(tmp_path, CSV)
    csv = tmp_path / "studies.csv"
    table = load_table("table", None, ["Edema"], csv=csv, path_column="file")
    assert table["patient"].tolist() == ["a.png", "b.png"]
    assert table["path"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


@pytest.mark.parametrize("cell", ["yes", "2", "-1", "NA"])
def test_table_refuses_a_label_cell(tmp_path, cell):
    given = write_csv(tmp_path, f"file,Edema\na.png,1\nb.png,\nc.png,{cell}\nd.png,{cell}\n")
    with pytest.raises(
        InputError, match=rf"column 'Edema' holds '{cell}' in row 4 \(invalid rows: 2"
    ):
        load_table("table", **given, labels=["Edema"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"path_column": "fil"},
            r"data.path_column .*'fil'.* has the columns file, who, part, view",
        ),
        ({"path_column": "fil"}, "did you mean 'file'"),
        ({"path_column": None}, "data.path_column is not set"),
        ({"patient_column": "patient"}, "data.patient_column .*'patient'"),
        ({"labels": None}, "data.labels is not set; the columns .* are: Effusion, Edema$"),
        ({"labels": ["Edma"]}, "data.labels must be one of .*did you mean 'Edema'"),
        ({"labels": "Edema"}, r"must be a list .*'data.labels=\[Edema\]'"),
        ({"labels": []}, "must be a list"),
        ({"csv": None}, "data.csv is not set"),
        ({"csv": "nope.csv"}, "data.csv: there is no file .*nope.csv"),
        (
            {"split_column": "who"},
            "column 'who' holds 'p1' in row 2 .*splits must be train, val, test",
        ),
        ({"patient_column": "part"}, "column 'part' holds '' in row 3 .*needs a patient"),
        ({"views": ["PA"]}, "records no views"),
        ({"views": ["LL"], "view_column": "view"}, "data.views must be one of AP, PA"),
        ({"root": "/nowhere/at/all"}, "data.root: there is no directory /nowhere/at/all"),
    ],
)
def test_table_refuses(tmp_path, changes, message):
    given = {**write_csv(tmp_path, CSV), "labels": ["Edema"]}
    with pytest.raises(InputError, match=message):
        load_table("table", **(given | changes))


@pytest.mark.parametrize("label", ["patient", "images", "patients", "row", "group"])
def test_table_refuses_a_label_that_is_called_like_a_column_of_ours(tmp_path, label):
    given = write_csv(tmp_path, f"file,{label}\na.png,1\n")
    with pytest.raises(InputError, match=f"a label cannot be called '{label}'"):
        load_table("table", **given, labels=[label])


def test_table_refuses_a_label_that_is_called_like_the_probability_of_another(tmp_path):
    given = write_csv(tmp_path, "file,A,A_probability,B_probability\na.png,1,0,1\n")
    with pytest.raises(InputError, match="a label cannot be called 'A_probability'"):
        load_table("table", **given, labels=["A_probability", "A"])
    load_table("table", **given, labels=["A", "B_probability"])


def columns():
    return {"patient_column": "who", "split_column": "part", "view_column": "view"}


@pytest.mark.parametrize("kind", [float, "Int64", "boolean", "category", str])
def test_parquet_is_read_as_the_csv_is(tmp_path, kind):
    given = write_csv(tmp_path, CSV)
    labels = pd.DataFrame({"Effusion": [1, None], "Edema": [0, 0]}, dtype="Int64")
    rest = {"file": ["a.png", "b.png"], "who": ["p1", "p1"], "part": ["train", None], "view": "PA"}
    frame = pd.DataFrame(rest).assign(**{name: labels[name].astype(kind) for name in labels})
    frame.assign(view=["PA", "AP"], where=[{"a": 1}, {"a": 2}]).to_parquet(tmp_path / "s.csv")
    read = {"labels": ["Effusion", "Edema"], **columns()}
    expected = load_table("table", **given, **read)
    found = load_table("table", **(given | {"csv": "s.csv"}), **read)
    pd.testing.assert_frame_equal(found, expected)


def test_uncertain_labels_are_refused_until_a_policy_is_named(tmp_path):
    text = "file,Edema\na.png,-1\nb.png,\nc.png,1\nd.png,-1.0\n"
    given = write_csv(tmp_path, text) | {"labels": ["Edema"]}
    with pytest.raises(InputError, match=r"holds '-1' in row 2 \(invalid rows: 2.*data.uncertain"):
        load_table("table", **given)
    nan = np.nan
    for policy, edema in {"zeros": [0, nan, 1, 0], "soft": [0.7, nan, 1, 0.7]}.items():
        found = sources.load("table", **given, uncertain=policy)
        np.testing.assert_array_equal(found.table["Edema"], edema)
        assert {count for d in found.decisions for count in d.counts.items()} >= {("Edema", 2)}
    blank = load_table("table", **given, uncertain="ones", blank="zero")
    assert blank["Edema"].tolist() == [1, 0, 1, 1]


def test_an_image_without_a_patient_is_its_own_when_asked(tmp_path):
    given = write_csv(tmp_path, "file,who,Edema\na.png,p1,1\nb.png, ,0\nc.png,p1,1\nd.png,,0\n")
    keys = given | {"labels": ["Edema"], "patient_column": "who"}
    with pytest.raises(InputError, match=r"column 'who' holds ' ' in row 3 \(invalid rows: 2"):
        load_table("table", **keys)
    found = sources.load("table", **keys, on_missing_patient="own")
    assert found.table["patient"].tolist() == ["p1", "b.png", "p1", "d.png"]
    assert [decision.counts for decision in policies(found)] == [{"images": 2}]


@pytest.mark.parametrize(
    "names", [("1.2.840.1", "1.2.840.2", "1.2.840.3"), ("1.png", "1.jpg", "1")]
)
def test_images_that_are_their_own_patients_differ_in_their_whole_names(tmp_path, names):
    rows = "".join(f"{name},,{len(name) % 2}\n" for name in names)
    given = write_csv(tmp_path, f"file,who,Edema\n{rows}", names) | {"labels": ["Edema"]}
    own = {"patient_column": "who", "on_missing_patient": "own"}
    for keys in ({}, own):
        assert load_table("table", **given, **keys)["patient"].tolist() == [*names]


def test_only_the_columns_in_use_are_read(tmp_path):
    """A table may hold columns that are no text, twice the same name, or thousands of findings."""
    given = write_csv(tmp_path, b"file,note,note,Edema\na.png,\xe4\x00,x,1\nb.png,y,z,0\n")
    assert load_table("table", **given, labels=["Edema"])["Edema"].tolist() == [1, 0]
