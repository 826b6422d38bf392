"""Folders become splits and labels only if they are that; everything else is refused by name."""

import re

import cv2
import numpy as np
import pytest

from fluoroscope import sources
from fluoroscope.data.split_names import SPLIT_NAMES, split_of
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.patient_names import match_patients, propose_pattern
from fluoroscope.sources.reading.read_studies import read_studies
from tests.sources.test_tree import CLASSES, grid, said
from tests.support.collections import touch

SPLITS = {"train": "train", "val": "val", "test": "test"}


# --------------------------------------------------------------------------------- words for splits
WRITTEN = ("{}", "{}_images", "{} Data", "pngs-{}", "{}set_png", "{}Images")


@pytest.mark.parametrize("word", sorted(SPLIT_NAMES))
def test_a_word_names_a_split_in_any_case_and_beside_other_words(word):
    for write in WRITTEN:
        for name in (write.format(word), write.format(word.upper())):
            assert split_of(name) == SPLIT_NAMES[word], name


@pytest.mark.parametrize(("word", "write"), zip(SPLIT_NAMES, WRITTEN * 9, strict=False))
def test_one_list_of_words_names_splits_in_folders_and_tables(tmp_path, word, write):
    name, other = write.format(word.upper()), "test" if SPLIT_NAMES[word] == "train" else "train"
    grid(tmp_path, [name, other], CLASSES)
    table = sources.load("folder", tmp_path).table
    assert table["split"].value_counts().to_dict() == {SPLIT_NAMES[word]: 4, other: 4}
    paths = [path.removeprefix(f"{tmp_path}/") for path in table["path"]]
    rows = [f"{path},{path.split('/')[0]},{number % 2}" for number, path in enumerate(paths)]
    (tmp_path / "t.csv").write_text("\n".join(["path,part,Mass", *rows]))
    keys = {"csv": "t.csv", "path_column": "path", "split_column": "part", "labels": ["Mass"]}
    assert sources.load("table", tmp_path, **keys).table["split"].equals(table["split"])


def test_other_words_name_no_split():
    for word in ("testis", "trainee", "images", "data", "", "normal", "valve", "train_sick", "set"):
        assert split_of(word) is None, word


@pytest.mark.parametrize("name", ["extra", "unlabelled", "fold1", "chest_xray"])
def test_a_folder_beside_split_folders_is_refused_not_dropped(tmp_path, name):
    grid(tmp_path, ["train", "test"], CLASSES)
    grid(tmp_path, [name], CLASSES, count=3)
    with pytest.raises(InputError, match=rf"folders \({name}\) .* 6 images .*exclude=\[{name}\]'"):
        sources.load("folder", tmp_path)
    left = sources.load("folder", tmp_path, exclude=[name])
    assert len(left.table) == 8
    assert said(left)["data.exclude"] == {name: 6}


def test_a_second_copy_beside_split_folders_is_left_out_and_counted(tmp_path):
    for home in ("", "chest_xray", "b/chest_xray"):
        grid(tmp_path / home, ["train", "test"], CLASSES)
    collection = sources.load("folder", tmp_path)
    assert len(collection.table) == 8
    assert said(collection)["a second copy of the split folders"] == {"images": 16}
    assert "images that no row of the table names" not in said(collection)


# ------------------------------------------------------------------- roots that are too high or low
HIGH = {
    "images-224/images-224": (["images-224"], ["images-224"], CLASSES),
    "chest_xray/chest_xray": (["chest_xray"], ["chest_xray"], SPLITS, CLASSES),
    "kaggle": (["kaggle"], ["train_images", "test_images"], CLASSES),
    "mine/png": (["mine"], ["png"], ["viral", "bacterial"]),
}


@pytest.mark.parametrize("right", HIGH)
def test_a_root_above_the_class_folders_is_named(tmp_path, right):
    grid(tmp_path, *HIGH[right])
    root = re.escape(str(tmp_path / right))
    with pytest.raises(InputError, match=rf"two or more class folders.*; set data.root={root}$"):
        sources.load("folder", tmp_path)
    assert len(label_columns(sources.load("folder", tmp_path / right).table)) == 1


@pytest.mark.parametrize(
    ("levels", "low"),
    [
        ((SPLITS, CLASSES), "train/NORMAL"),
        ((CLASSES,), "PNEUMONIA"),
        ((CLASSES, ["P1", "P2"]), "NORMAL/P1"),
        ((["viral", "bacterial"],), "viral"),
    ],
)
def test_a_root_below_the_class_folders_is_named(tmp_path, levels, low):
    grid(tmp_path / "home", *levels)
    root = re.escape(str(tmp_path / "home"))
    with pytest.raises(InputError, match=rf"found none; set data.root={root}$"):
        sources.load("folder", tmp_path / "home" / low)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((["A", "B"], CLASSES), r"A contains the folder NORMAL, .*root=\S*/A or data.root=\S*/B$"),
        ((["A", "B"], SPLITS, CLASSES), r"A contains the folder test, .*/A or data.root=\S*/B$"),
        ((["A", "B"], ["viral", "bacterial"]), r"the same classes: bacterial, viral; .*root=\S*/A"),
        ((CLASSES, SPLITS), "NORMAL contains .* split; move the split folders above the class"),
        ((["images", "labels_png"],), "images does not look like a finding; move .*data=table"),
        ((["train_images", "test_images"],), "found none in the split folders; .*data=table"),
        ((["train"], ["fold", "test"], CLASSES), "test looks like a split"),
    ],
)
def test_labels_that_are_splits_collections_or_images_are_refused(tmp_path, levels, message):
    grid(tmp_path, *levels)
    with pytest.raises(InputError, match=message):
        sources.load("folder", tmp_path, exclude=[])


def test_a_split_folder_in_its_like_is_one_folder(tmp_path):
    grid(tmp_path, ["train"], ["train"], CLASSES)
    grid(tmp_path, ["test"], ["Test"], CLASSES)
    table = sources.load("folder", tmp_path).table
    assert table["split"].value_counts().to_dict() == {"train": 4, "test": 4}
    assert label_columns(table) == ["PNEUMONIA"]


@pytest.mark.parametrize(
    "inner", [["AP", "PA"], ["P1", "P2"], ["2019", "2020"], ["mild", "severe"]]
)
def test_folders_in_class_folders_stay_part_of_the_class(tmp_path, inner):
    grid(tmp_path, ["normal", "abnormal"], inner)
    assert sources.load("folder", tmp_path).table["abnormal"].sum() == 4


@pytest.mark.parametrize(
    ("names", "label"),
    [
        *((("0", "1"), "1"), (("X", "Y"), "Y"), (("abdomen", "chest"), "chest")),
        *((("no_tb", "tb"), "tb"), (("imaging", "none"), "none")),
    ],
)
def test_names_of_classes_are_not_taken_for_folders_of_images(tmp_path, names, label):
    grid(tmp_path, names)
    assert label_columns(sources.load("folder", tmp_path).table) == [label]


# -------------------------------------------------------------------------- masks and second files
@pytest.mark.parametrize(
    "folder", ["masks", "lung masks", "leftMask", "Overlays", "ground_truth", "seg", "GradCAM"]
)
def test_folders_of_drawings_are_refused_with_the_key(tmp_path, folder):
    """As in COVID-QU-Ex, Montgomery County and the COVID-19 Radiography Database."""
    grid(tmp_path, CLASSES, ["images", folder])
    with pytest.raises(
        InputError, match=r"4 images that by their names .*'data.exclude=\["
    ) as told:
        sources.load("folder", tmp_path)
    key = re.search(r"data\.exclude=\[(.*)\]'", str(told.value))[1].strip('"')
    assert len(sources.load("folder", tmp_path, exclude=[key]).table) == 4


@pytest.mark.parametrize("name", ["{}_mask.png", "{}-overlay.png", "mask_{}.png", "{}Masked.png"])
def test_files_of_drawings_are_refused_with_the_key(tmp_path, name):
    touch(
        *(tmp_path / c / f for c in CLASSES for i in range(2) for f in (f"{i}.png", name.format(i)))
    )
    with pytest.raises(
        InputError, match=r"4 images that by their names .*'data.exclude=\["
    ) as told:
        sources.load("folder", tmp_path)
    key = re.search(r'data\.exclude=\["?(.*?)"?\]', str(told.value))[1]
    assert len(sources.load("folder", tmp_path, exclude=[key]).table) == 4


def test_a_person_called_maskell_is_no_mask(tmp_path):
    grid(tmp_path, CLASSES, ["Maskell^Ann", "Labelle", "Roisin"])
    assert len(sources.load("folder", tmp_path).table) == 12


@pytest.mark.parametrize("twin", ["a.dcm", "A.JPG", "a.png.png", "a.tif"])
def test_two_files_of_one_name_are_refused(tmp_path, twin):
    touch(tmp_path / "NORMAL/a.png", tmp_path / f"NORMAL/{twin}", tmp_path / "SICK/a.dcm")
    with pytest.raises(InputError, match=r"contains 1 film in several files of one name: NORMAL/"):
        sources.load("folder", tmp_path)


def test_advice_to_exclude_keeps_what_is_excluded(tmp_path):
    grid(tmp_path, CLASSES, ["images", "masks", "overlay"])
    with pytest.raises(InputError, match=r"'data.exclude=\[masks,overlay\]'"):
        sources.load("folder", tmp_path, exclude=["masks"])


def write_films(root, films, masks, *, low=0, high=255):
    rng = np.random.default_rng(0)
    for name in films:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), rng.integers(20, 230, (64, 64), np.uint8))
    for number, name in enumerate(masks):
        drawn = np.full((64, 64), low, np.uint8)
        drawn[10 + number : 40, 10:50] = high
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), drawn)


DATA = {
    **{"source": "folder", "labels": None, "views": None, "on_missing": "stop"},
    **{"on_unreadable": "stop", "exclude": [], "patient_pattern": None, "follow_links": False},
}


@pytest.mark.parametrize("levels", [(0, 255), (0, 1), (3, 250)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_folders_of_two_valued_pictures_are_refused_by_their_pixels(tmp_path, levels, suffix):
    if levels == (0, 1) and suffix == ".jpg":
        return
    films = [f"{c}/films/{i}.png" for c in CLASSES for i in range(9)]
    masks = [f"NORMAL/lungs/m{i}{suffix}" for i in range(3)]
    write_films(tmp_path, films, masks, low=levels[0], high=levels[1])
    data = DATA | {"root": str(tmp_path)}
    with pytest.raises(InputError, match=r"3 of 21 images are black and white .*exclude=\[lungs\]"):
        read_studies(data, split=False)
    assert len(read_studies(data | {"exclude": ["lungs"]}, split=False).table) == 18


def test_a_few_white_films_and_a_collection_of_masks_are_kept(tmp_path):
    films = [f"{c}/{i}.png" for c in CLASSES for i in range(9)]
    write_films(tmp_path / "a", films, ["NORMAL/m.png"])
    write_films(tmp_path / "b", [], films)
    for name, count in (("a", 19), ("b", 18)):
        data = DATA | {"root": str(tmp_path / name)}
        assert len(read_studies(data, split=False).table) == count


# ------------------------------------------------------------------------------------- patients
@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("{c}/PAT{p:03d}/study{s}/x.png", r"(PAT\d+)"),
        ("{c}/{p}/x{s}.png", r"/(\d+)/"),
        ("{c}/hospital/p{p}-{c}/{s}.png", r"(?P<patient>p\d+-[A-Z]+)/"),
        ("train/{c}/site-{p}/scan{s}.png", r"site-(\d+)"),
    ],
)
def test_patients_may_be_folders(tmp_path, path, pattern):
    for patient in range(6):
        for study in (1, 2):
            touch(tmp_path / path.format(c=CLASSES[patient % 2], p=patient, s=study))
    touch(*(tmp_path / f"test/{c}/site-9/0.png" for c in CLASSES if path.startswith("train")))
    table = sources.load("folder", tmp_path, patient_pattern=pattern).table
    assert (table[table["split"] != "test"].groupby("patient").size() == 2).all()
    assert table["patient"].nunique() in (6, 7)


def test_a_pattern_that_matches_all_file_names_ignores_folders():
    names = ["PAT1/PAT7_a.png", "PAT2/PAT7_b.png"]
    assert match_patients(names, r"(PAT\d)") == ["PAT7", "PAT7"]
    assert match_patients([*names, "PAT3/c.png"], r"(PAT\d)") == ["PAT1", "PAT2", "PAT3"]


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        ([f"{p % 2}/PAT{p}/study{s}/x.png" for p in range(8) for s in (1, 2)], 8),
        ([f"sick/{p:08d}_{s:03d}.png" for p in range(8) for s in range(3)], 8),
        ([f"train/sick/IM-{p:04d}-{s}.jpeg" for p in range(8) for s in range(3)], 8),
        ([f"sick/person{p}_virus_{9 * p + s}.jpeg" for p in range(8) for s in (1, 2)], 8),
        ([f"sick/{p}.png" for p in range(40)], None),
        ([f"sick/COVID-{p}.png" for p in range(40)], None),
        ([f"sick/CHNCXR_{p:04d}_1.png" for p in range(40)], None),
        ([f"{c}/AP/{p}.png" for c in "ab" for p in range(20)], None),
        ([f"sick/fold{p % 5}_{p}.png" for p in range(200)], None),
    ],
)
def test_a_pattern_is_proposed_where_one_obviously_fits(names, patients):
    proposed = propose_pattern(names)
    assert (proposed and proposed[1]) == patients
    if proposed:
        assert len(set(match_patients(names, proposed[0]))) == patients


def test_the_proposal_is_told_and_goes_when_it_is_followed(tmp_path):
    touch(*(tmp_path / f"{CLASSES[p % 2]}/{p}_{s}.png" for p in range(8) for s in (1, 2)))
    told = sources.load("folder", tmp_path).decisions[-1]
    assert told.counts == {"patients": 8}
    pattern = re.fullmatch(r"'data.patient_pattern=\"(.*)\"' would find", told.policy)[1]
    collection = sources.load("folder", tmp_path, patient_pattern=pattern)
    assert collection.table["patient"].nunique() == 8
    assert collection.decisions == ()
