import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.data.studies import label_columns
from fluoroscope.errors import InputError

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
KAGGLE_PATTERN = r"(person\d+|IM-\d+)"


def load_table(*args, **keys):
    return sources.load(*args, **keys).table


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def kaggle(tmp_path):
    """The tree of the Kaggle pneumonia set, with what its zip and a Mac leave beside it."""
    root = tmp_path / "chest_xray"
    touch(
        root / "train/NORMAL/IM-0115-0001.jpeg",
        root / "train/NORMAL/NORMAL2-IM-0383-0001.jpeg",
        root / "train/PNEUMONIA/person1_bacteria_1.jpeg",
        root / "train/PNEUMONIA/person1_bacteria_2.jpeg",
        root / "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
        root / "test/PNEUMONIA/person100_virus_184.jpeg",
        root / "train/NORMAL/.DS_Store",
        root / "train/NORMAL/notes.txt",
        root / "__MACOSX/train/NORMAL/._IM-0115-0001.jpeg",
        root / "chest_xray/train/NORMAL/IM-0115-0001.jpeg",
    )
    return root


def write_nih(root, rows, header=NIH_HEADER, name="Data_Entry_2017_v2020.csv"):
    root.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{file},{found},0,{who},50,M,{view},3056,2544,0.1,0.1" for file, found, who, view in rows
    ]
    (root / name).write_bytes("\n".join([header, *lines, ""]).encode())


@pytest.fixture
def nih(tmp_path):
    rows = [
        ("00000001_000.png", "Cardiomegaly|Pleural_Thickening", 1, "PA"),
        ("00000001_001.png", "No Finding", 1, "AP"),
        ("00000002_000.png", "Mass", 2, "PA"),
    ]
    write_nih(tmp_path, rows)
    touch(
        tmp_path / "images_001/images/00000001_000.png",
        tmp_path / "images_001/images/00000001_001.png",
        tmp_path / "images_012/images/00000002_000.png",
    )
    return tmp_path


def write_csv(root, text, images=("a.png", "b.png", "c.png", "d.png")):
    touch(*(root / name for name in images))
    (root / "studies.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return {"root": root, "csv": "studies.csv", "path_column": "file"}


CSV = "file,who,part,view,Effusion,Edema\na.png,p1,Training,PA,1,0\nb.png,p1,,AP,,0.0\n"


# ------------------------------------------------------------------------------------- folder
def test_folder_reads_the_kaggle_tree(kaggle):
    table = load_table("folder", kaggle, patient_pattern=KAGGLE_PATTERN)
    assert list(table.columns) == ["path", "patient", "split", "view", "PNEUMONIA"]
    rows = {
        (row.path.rsplit("/", 1)[1], row.patient, row.split, row.PNEUMONIA)
        for row in table.itertuples()
    }
    assert rows == {
        ("IM-0115-0001.jpeg", "IM-0115", "train", 0.0),
        ("NORMAL2-IM-0383-0001.jpeg", "IM-0383", "train", 0.0),
        ("person1_bacteria_1.jpeg", "person1", "train", 1.0),
        ("person1_bacteria_2.jpeg", "person1", "train", 1.0),
        ("NORMAL2-IM-1427-0001.jpeg", "IM-1427", "val", 0.0),
        ("person100_virus_184.jpeg", "person100", "test", 1.0),
    }
    assert table["view"].tolist() == [None] * 6


def test_folder_takes_other_split_names(tmp_path):
    touch(*(tmp_path / s / c / "1.png" for s in ("Training", "VALID", "testing") for c in "ab"))
    assert (
        sorted(load_table("folder", tmp_path)["split"])
        == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    )


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (["No_Finding", "tuberculosis"], ["tuberculosis"]),
        (["aaa", "healthy"], ["aaa"]),
        (["bacterial", "viral"], ["viral"]),
        (["covid", "normal", "pneumonia"], ["covid", "pneumonia"]),
        (["a", "b", "c"], ["a", "b", "c"]),
    ],
)
def test_folder_makes_labels_of_classes(tmp_path, classes, labels):
    for count, name in enumerate(classes, start=1):
        touch(*(tmp_path / name / "deep" / f"{i}.PNG" for i in range(count)))
        touch(tmp_path / name / ".ipynb_checkpoints/0-checkpoint.png", tmp_path / name / "._0.png")
    table = load_table("folder", tmp_path)
    assert label_columns(table) == labels
    assert table[labels].sum().tolist() == [classes.index(label) + 1 for label in labels]
    assert table["split"].tolist() == [None] * len(table)


def test_folder_without_pattern_makes_every_image_a_patient(tmp_path):
    touch(tmp_path / "normal/1.png", tmp_path / "sick/1.png", tmp_path / "sick/2.png")
    assert load_table("folder", tmp_path)["patient"].tolist() == ["normal/1", "sick/1", "sick/2"]


def test_folder_selects_and_orders_labels(tmp_path):
    touch(*(tmp_path / name / "1.png" for name in "abc"))
    assert label_columns(load_table("folder", tmp_path, ["c", "a"])) == ["c", "a"]


def test_folder_named_group_is_the_patient(tmp_path):
    touch(tmp_path / "normal/x7_p12.png", tmp_path / "sick/x8_p13.png")
    table = load_table("folder", tmp_path, patient_pattern=r"x(\d)_p(?P<patient>\d+)")
    assert table["patient"].tolist() == ["12", "13"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(person\d+)", r"no patient in 3 of 6 file names: .*IM-0115-0001.jpeg, "),
        (r"person\d+", "needs one group"),
        (r"(person", "not valid"),
    ],
)
def test_folder_refuses_a_pattern(kaggle, pattern, message):
    with pytest.raises(InputError, match=message):
        load_table("folder", kaggle, patient_pattern=pattern)


def test_folder_refuses_one_class_and_classes_beside_splits(tmp_path):
    touch(tmp_path / "one/1.png", tmp_path / "empty/notes.txt")
    with pytest.raises(InputError, match=r"two or more classes.*found one"):
        load_table("folder", tmp_path)
    touch(tmp_path / "train/normal/1.png", tmp_path / "train/sick/1.png")
    with pytest.raises(InputError, match=r"class folders \(one\) beside split folders \(train\)"):
        load_table("folder", tmp_path)


# -------------------------------------------------------------------------------------- table
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
    assert table["patient"].tolist() == ["a", "b"]
    assert table["path"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_table_reads_a_byte_order_mark_and_windows_line_ends(tmp_path):
    given = write_csv(tmp_path, b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode())
    table = load_table("table", **given, labels=["Edema"])
    assert table["Edema"].tolist() == [0, 0]


@pytest.mark.parametrize("cell", ["yes", "2", "-1", "NA"])
def test_table_refuses_a_label_cell(tmp_path, cell):
    given = write_csv(tmp_path, f"file,Edema\na.png,1\nb.png,\nc.png,{cell}\nd.png,{cell}\n")
    with pytest.raises(InputError, match=rf"column 'Edema' holds '{cell}' in row 4 \(2 such rows"):
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
        ({"csv": "nope.csv"}, "data.csv: no file .*nope.csv"),
        ({"split_column": "who"}, "column 'who' holds 'p1' in row 2 .*splits are train, val, test"),
        ({"patient_column": "part"}, "column 'part' holds '' in row 3 .*needs its patient"),
        ({"views": ["PA"]}, "records no views"),
        ({"views": ["LL"], "view_column": "view"}, "data.views must be one of AP, PA"),
        ({"root": "/nowhere/at/all"}, "data.root: there is no directory /nowhere/at/all"),
    ],
)
def test_table_refuses(tmp_path, changes, message):
    given = {**write_csv(tmp_path, CSV), "labels": ["Edema"]}
    with pytest.raises(InputError, match=message):
        load_table("table", **(given | changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read .*studies.csv"),
        ("file,Edema\na.png,1,2,3\nb.png,1\n", "cannot read .*studies.csv"),
        ("file,Edema\na.png,1,2\nb.png,1,2\n", "more cells than its header"),
        ('file,Edema\n"a.png,1\n', "cannot read .*studies.csv"),
        ("file,Edema\nä.png,1\n".encode("latin-1"), "not UTF-8"),
        ("file,Edema\n", "has no images"),
        ("file,Edema\na.png,1\nx.png,1\ny.png,0\n", "2 of 3 images are not on disk: .*x.png"),
        ("file,Edema\na.png,1\nb.png,1\nsub/../a.png,0\n", "1 images are listed more than once"),
    ],
)
def test_table_refuses_a_file(tmp_path, text, message):
    given = write_csv(tmp_path, text)
    with pytest.raises(InputError, match=message):
        load_table("table", **given, labels=["Edema"])


@pytest.mark.parametrize("label", ["patient", "images", "patients", "row", "group"])
def test_table_refuses_a_label_that_is_called_like_a_column_of_ours(tmp_path, label):
    given = write_csv(tmp_path, f"file,{label}\na.png,1\n")
    with pytest.raises(InputError, match=f"a label cannot be called '{label}'"):
        load_table("table", **given, labels=[label])


# -------------------------------------------------------------------------------------- nih14
def test_nih14_reads_findings_views_and_patients(nih):
    table = load_table("nih14", nih)
    assert len(label_columns(table)) == 14
    assert table["patient"].tolist() == ["1", "1", "2"]
    assert table["view"].tolist() == ["PA", "AP", "PA"]
    assert table["path"].str.contains("images_012").tolist() == [False, False, True]
    assert not table[label_columns(table)].isna().any(axis=None)
    positive = table[label_columns(table)].sum()
    assert positive[positive > 0].to_dict() == {
        "Cardiomegaly": 1,
        "Mass": 1,
        "Pleural_Thickening": 1,
    }
    assert table["split"].tolist() == [None] * 3


def test_nih14_selects_labels_and_views(nih):
    table = load_table("nih14", nih, ["No Finding", "Mass"], views=["PA"])
    assert table[["No Finding", "Mass"]].to_numpy().tolist() == [[0, 0], [0, 1]]
    assert table["view"].tolist() == ["PA", "PA"]


def test_nih14_keeps_the_official_test_list(nih):
    (nih / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (nih / "test_list.txt").write_bytes(b"00000002_000.png\r\n")
    assert load_table("nih14", nih)["split"].tolist() == [None, None, "test"]


def test_nih14_lists_may_name_more_images_than_a_part_of_the_set_has(nih):
    (nih / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n9_000.png\n")
    (nih / "test_list.txt").write_text("00000002_000.png\n9_001.png\n")
    assert load_table("nih14", nih)["split"].tolist() == [None, None, "test"]


def test_nih14_needs_every_image_in_one_of_two_lists(nih):
    (nih / "test_list.txt").write_text("00000002_000.png\n")
    assert load_table("nih14", nih)["split"].tolist() == [None, None, "test"]  # the one list alone
    (nih / "train_val_list.txt").write_text("")
    message = r"2 of 3 images are in neither of test_list.txt and train_val_list.txt: "
    with pytest.raises(InputError, match=message + "00000001_000.png, 00000001_001.png; .*remove"):
        load_table("nih14", nih)
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png"]
    (nih / "train_val_list.txt").write_text("\n".join(names))
    with pytest.raises(InputError, match=r"1 of 3 images are in both .*: 00000002_000.png; "):
        load_table("nih14", nih)
    (nih / "test_list.txt").unlink()
    assert load_table("nih14", nih)["split"].tolist() == [None] * 3


def test_nih14_reads_the_older_csv_whose_lines_end_in_a_comma(tmp_path):
    rows = [("00000001_000.png", "Mass", 1, "PA,3056,2544,0.1,0.1,")]
    write_nih(tmp_path, [], NIH_HEADER + ",", "Data_Entry_2017.csv")
    with (tmp_path / "Data_Entry_2017.csv").open("a") as csv:
        csv.writelines(f"{f},{found},0,{who},50,M,{rest}\n" for f, found, who, rest in rows)
    touch(tmp_path / "images/00000001_000.png")
    assert load_table("nih14", tmp_path, ["Mass"])["Mass"].tolist() == [1]


def test_nih14_refuses(nih, tmp_path_factory):
    with pytest.raises(InputError, match="did you mean 'Pneumonia'"):
        load_table("nih14", nih, ["pneumonia"])
    (nih / "images_012/images/00000002_000.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images are not on disk: .*00000002_000.png"):
        load_table("nih14", nih)
    assert len(load_table("nih14", nih, views=["AP"])) == 1  # rows that are not used may be missing
    with pytest.raises(InputError, match=r"holds no Data_Entry_2017_v2020.csv or Data_Entry"):
        load_table("nih14", tmp_path_factory.mktemp("empty"))


# ------------------------------------------------------------------------------ phantom, common
def test_phantom_becomes_a_study_table(tmp_path, monkeypatch):
    def write_collection(root, patients=250, seed=0):
        files = [f"images/{i}.png" for i in range(patients)]
        touch(*(root / file for file in files))
        frame = pd.DataFrame({"file": files, "patient": range(patients), "view": "PA"})
        return frame.assign(Nodule=[i % 2 for i in range(patients)], Effusion=0)

    stub = ModuleType("fluoroscope.data.phantom")
    stub.write_collection, stub.FINDINGS = write_collection, ("Nodule", "Effusion")
    monkeypatch.setitem(sys.modules, "fluoroscope.data.phantom", stub)
    table = load_table("phantom", tmp_path / "new", patients=5)
    assert label_columns(table) == ["Nodule", "Effusion"]
    assert table["Nodule"].tolist() == [0, 1, 0, 1, 0]
    assert table["patient"].tolist() == ["0", "1", "2", "3", "4"]
    assert table["path"][4] == str(tmp_path / "new/images/4.png")
    assert label_columns(load_table("phantom", tmp_path / "new", ["Effusion"])) == ["Effusion"]
    with pytest.raises(InputError, match="did you mean 'Nodule'"):
        load_table("phantom", tmp_path / "new", ["Nodul"])


@pytest.mark.parametrize("source", ["phantom", "folder", "nih14"])
def test_root_is_required(source):
    with pytest.raises(InputError, match=r"data.root is not set: .*data.root=DIR"):
        load_table(source, None)


def test_unknown_source():
    with pytest.raises(InputError, match=r"folder, nih14, phantom, table; .*did you mean 'nih14'"):
        load_table("nih4", "x")
