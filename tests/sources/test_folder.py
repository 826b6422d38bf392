import numpy as np
import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns, patients_known
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.csv_cells import unknown_patients
from tests.support.collections import touch
from tests.support.dicoms import write_dicom

KAGGLE_PATTERN = r"(person\d+|IM-\d+)"


def load_table(*args, **keys):
    return sources.load(*args, **keys).table


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
    patients = load_table("folder", tmp_path)["patient"].tolist()
    assert patients == ["normal/1.png", "sick/1.png", "sick/2.png"]


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
        (r"person\d+", "needs exactly one group"),
        (r"(person", "not valid"),
    ],
)
def test_folder_refuses_a_pattern(kaggle, pattern, message):
    with pytest.raises(InputError, match=message):
        load_table("folder", kaggle, patient_pattern=pattern)


def test_folder_refuses_one_class_and_classes_beside_splits(tmp_path):
    touch(tmp_path / "one/1.png", tmp_path / "empty/notes.txt")
    with pytest.raises(InputError, match=r"two or more class folders.*found one"):
        load_table("folder", tmp_path)
    touch(tmp_path / "train/normal/1.png", tmp_path / "train/sick/1.png")
    with pytest.raises(InputError, match=r"folders \(one\) next to split .*exclude=\[one\]"):
        load_table("folder", tmp_path)


def test_folder_takes_other_kinds_of_files(tmp_path):
    names = ["1.dcm", "2.DICOM", "3.npy", "4.tiff", "5.txt", "6.xml"]
    touch(*(tmp_path / kind / name for kind in ("normal", "sick") for name in names))
    assert len(load_table("folder", tmp_path)) == 8


def test_folder_is_not_walked_in_circles(tmp_path):
    touch(tmp_path / "normal/1.png", tmp_path / "sick/deep/2.png", tmp_path / "sick/3.png")
    (tmp_path / "sick/self").symlink_to(tmp_path / "sick")
    (tmp_path / "normal/more").symlink_to(tmp_path / "sick/deep")
    names = [path.removeprefix(f"{tmp_path}/") for path in load_table("folder", tmp_path)["path"]]
    assert names == ["normal/1.png", "normal/more/2.png", "sick/3.png", "sick/deep/2.png"]


def test_folder_tells_that_patients_are_unknown(tmp_path):
    touch(tmp_path / "normal/p1.png", tmp_path / "sick/p2.png")
    (told,) = sources.load("folder", tmp_path).decisions
    assert told.counts == {"images": 2}
    assert sources.load("folder", tmp_path, patient_pattern=r"(p\d)").decisions == ()


@pytest.fixture
def exports(tmp_path):
    """Four DICOM films of three persons and a PNG; one film names nobody."""
    pixels = np.arange(99, dtype=np.uint8).reshape(9, 11)
    people = {"sick/1": "P1", "well/2": "P1 ", "sick/3": "P2", "well/4": None, "sick/5": ""}
    for name, patient in people.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        elements = {} if patient is None else {"PatientID": patient}
        write_dicom(tmp_path / f"{name}.dcm", pixels, **elements)
    touch(tmp_path / "well/6.png")
    return tmp_path


def test_dicom_headers_name_the_patients_as_marks(exports):
    collection = sources.load("folder", exports)
    patient = dict(zip(names_of(collection.table), collection.table["patient"], strict=True))
    assert patient["1.dcm"] == patient["2.dcm"] != patient["3.dcm"]
    assert [patient[name] for name in ("4.dcm", "5.dcm", "6.png")] == [
        "well/4.dcm",
        "sick/5.dcm",
        "well/6.png",
    ]
    assert not any("P1" in mark or "P2" in mark for mark in patient.values())
    named, unnamed = collection.decisions
    assert named.counts == unnamed.counts == {"images": 3}
    assert patients_known(collection.patients_of, collection.decisions) == "some"
    assert collection.patients_of == "folder"


@pytest.mark.parametrize("keys", [{"dicom_patients": False}, {"patient_pattern": r"(\d)\."}])
def test_a_pattern_or_the_key_leaves_the_headers_alone(exports, keys):
    table = sources.load("folder", exports, **keys).table
    assert table["patient"].nunique() == 6


def test_one_patient_id_in_all_headers_is_that_of_an_anonymiser(exports):
    for path in exports.glob("*/*.dcm"):
        write_dicom(path, np.arange(99, dtype=np.uint8).reshape(9, 11), PatientID="ANON")
    collection = sources.load("folder", exports)
    assert collection.table["patient"].is_unique
    assert collection.decisions == unknown_patients(6)
    assert collection.patients_of == ""


def names_of(table):
    return [path.rsplit("/", 1)[1] for path in table["path"]]
