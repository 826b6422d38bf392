"""Collections as they lie on disks: other names of lists and tables, folders, releases, copies."""

import gzip
from pathlib import Path

import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import Collection
from fluoroscope.errors import InputError
from fluoroscope.sources.chexpert import FINDINGS
from fluoroscope.sources.padchest import CSV as PADCHEST
from fluoroscope.sources.reading.collection_files import find_file, find_films, unused_files
from tests.support.closed import close
from tests.support.collections import touch
from tests.support.real_rows import real_rows, write_rows

NIH = "Data_Entry_2017_v2020.csv"
BATCH = "CheXpert-v1.0 batch {}"
BATCH_1 = BATCH.format("1 (validate & csv)")
POLICY = "official files that are not used: {}"


def load(source: str, root: Path, *labels: str, **keys: object) -> Collection:
    return sources.load(source, root, [*labels] or None, **keys)


def files(collection: Collection, root: Path) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in collection.table["path"]]


def unused(collection: Collection) -> list[str]:
    return [d.policy for d in collection.decisions if "not used" in d.policy]


# --------------------------------------------------------------------------------- any collection
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_table_is_found_below_and_above(tmp_path, depth):
    home = tmp_path.joinpath(*"abcd"[:depth])
    touch(home / "table.csv.gz", home / "films/1/2/x.png")
    told = rf"holds no table.csv, but there is {home}/table.csv.gz; set data.root={home}$"
    for wrong in (tmp_path, home / "films", home / "films/1"):
        with pytest.raises(InputError, match=told):
            find_file(wrong, ["table.csv"])
    assert find_file(home, ["table.csv"]) == home / "table.csv.gz"


def test_what_may_not_be_looked_at_is_passed_over(tmp_path, monkeypatch):
    touch(tmp_path / "a/closed/table.csv", tmp_path / "b/c/table.csv")
    close(monkeypatch, "closed")
    with pytest.raises(InputError, match=rf"set data.root={tmp_path}/b/c$"):
        find_file(tmp_path, ["table.csv"])


def test_a_table_is_found_beside_many_patients(tmp_path):
    touch(*(tmp_path / f"a/patient{i:05d}/study1/x.png" for i in range(200)))
    touch(tmp_path / "b/data/table.csv")
    with pytest.raises(InputError, match=rf"set data.root={tmp_path}/b/data$"):
        find_file(tmp_path, ["table.csv"])


@pytest.mark.parametrize("name", ["TABLE.CSV", "Table.csv", "table.CSV.GZ"])
def test_a_table_is_found_in_another_case(tmp_path, name):
    touch(tmp_path / name, tmp_path / "other.csv")
    assert find_file(tmp_path, ["table.csv"]) == tmp_path / name


def test_the_first_folder_that_has_an_image_is_taken(tmp_path):
    touch(tmp_path / "b/1.png", tmp_path / "b/2.png", tmp_path / "c/2.png", tmp_path / "c/3.png")
    folders = [tmp_path / name for name in "abc"]
    found = [Path(path).relative_to(tmp_path) for path in find_films(["1.png", "2.png"], folders)]
    assert list(map(str, found)) == ["b/1.png", "b/2.png"]
    assert find_films(["3.png", "4.png"], folders) == [f"{tmp_path}/c/3.png", f"{tmp_path}/b/4.png"]
    beside = [tmp_path / "a", tmp_path / "c"]  # the last, that of the table, always exists
    assert find_films(["1.png", "3.png"], beside) == [f"{tmp_path}/a/1.png", f"{tmp_path}/c/3.png"]


def test_only_official_names_are_named(tmp_path):
    touch(tmp_path / "test_list.txt", tmp_path / "TEST_LIST_2.txt", tmp_path / "Mr Smith.csv")
    (tmp_path / "test_lists").mkdir()
    touch(tmp_path / "lists/the_test_list.csv", tmp_path / "lists/a/test_list_3.txt")
    (decision,) = unused_files(tmp_path, ["*test*list*"], [tmp_path / "test_list.txt", None])
    assert decision.policy == POLICY.format("TEST_LIST_2.txt, the_test_list.csv")
    assert decision.counts == {"files": 2}
    assert not unused_files(tmp_path, ["train*"], [])


# -------------------------------------------------------------------------------- NIH ChestX-ray14
def write_nih(root, folder="images", name=NIH, rows=6):
    cells = real_rows(NIH, rows)
    write_rows(root / name, cells)
    touch(*(root / folder / row["Image Index"] for row in cells))
    return [row["Image Index"] for row in cells]


@pytest.mark.parametrize("table", ["Data_Entry_2017.csv", "DATA_ENTRY_2017.CSV"])
@pytest.mark.parametrize("folder", ["images-224", "images-224/images-224", "images/images", "."])
def test_nih_copies_of_224_pixels_keep_the_official_test(tmp_path, folder, table):
    names = write_nih(tmp_path, folder, table)
    (tmp_path / "train_val_list_NIH.txt").write_text("\n".join(names[:4]))
    (tmp_path / "test_list_NIH.txt").write_text("\n".join(names[4:]))
    collection = load("nih14", tmp_path)
    assert collection.table["split"].tolist() == [None] * 4 + ["test"] * 2
    assert files(collection, tmp_path) == [str(Path(folder, name)) for name in names]
    assert not unused(collection)


@pytest.mark.parametrize("original", ["images", "images_001/images", "images_012/images"])
def test_nih_original_images_come_before_copies(tmp_path, original):
    names = write_nih(tmp_path, original)
    for folder in ("images-224/images-224", "images-128", "images_512/images"):
        touch(*(tmp_path / folder / name for name in names))
    assert files(load("nih14", tmp_path), tmp_path) == [f"{original}/{name}" for name in names]


@pytest.mark.parametrize("folder", ["", "lists", "labels"])
def test_nih_lists_may_lie_in_a_folder_of_their_own(tmp_path, folder):
    names = write_nih(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "test_list.txt").write_text("\n".join(names[:2]))
    assert load("nih14", tmp_path).table["split"].eq("test").sum() == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"train_val_list.txt": 6}, "train_val_list.txt"),
        ({"test_list.txt": 2, "test_list_NIH.txt": 3}, "test_list_NIH.txt"),
        ({"test_list_official.txt": 2, "val_list.txt": 2}, "test_list_official.txt, val_list.txt"),
        (
            {"test_list.txt.gz": 2, "Data_Entry_2017.csv": 0},
            "Data_Entry_2017.csv, test_list.txt.gz",
        ),
    ],
)
def test_nih_lists_that_are_not_used_are_named(tmp_path, more, said):
    names = write_nih(tmp_path)
    for name, last in more.items():
        (tmp_path / name).write_text("\n".join(names[-last:]))
    collection = load("nih14", tmp_path)
    assert unused(collection) == [POLICY.format(said)]
    assert collection.table["split"].eq("test").sum() == more.get("test_list.txt", 0)


# ----------------------------------------------------------------------------------------- CheXpert
def write_chexpert(root, place, folder="CheXpert-v1.0/", csv="train.csv", part="train", rows=8):
    """`place` is where a patient's folder lies, below the root."""
    cells = [
        row | {"Path": row["Path"].replace("CheXpert-v1.0-small/train/", f"{folder}{part}/")}
        for row in real_rows("chexpert_train.csv", rows)
    ]
    write_rows(root / csv, cells)
    rest = [row["Path"].partition(f"{part}/")[2] for row in cells]
    paths = [f"{place(name.split('/')[0])}/{name}" for name in rest]
    touch(*(root / path for path in paths))
    return paths


def in_batches(patient):
    return BATCH.format("2 (train 1)" if int(patient[7:]) < 3 else "3 (train 2)")


def test_chexpert_batches_are_read_where_they_were_unpacked(tmp_path):
    train = write_chexpert(tmp_path, in_batches, csv=f"{BATCH_1}/train.csv")
    valid = f"{BATCH_1}/valid"
    test = write_chexpert(tmp_path, lambda _: valid, csv=f"{valid}.csv", part="valid", rows=2)
    touch(tmp_path / "train_cheXbert.csv", tmp_path / "CHEXPERT DEMO.xlsx")
    collection = load("chexpert", tmp_path)
    assert files(collection, tmp_path) == train + test
    assert len({path.split("/")[0] for path in train}) == 2
    assert collection.table["split"].tolist() == ["train"] * len(train) + ["test"] * 2
    assert unused(collection) == [POLICY.format("CHEXPERT DEMO.xlsx, train_cheXbert.csv")]


def test_chexpert_batches_may_be_moved_into_train_one_by_one(tmp_path):
    def place(patient):
        return "train" if int(patient[7:]) < 3 else BATCH.format("3 (train 2)/train")

    train = write_chexpert(tmp_path, place)
    assert files(load("chexpert", tmp_path), tmp_path) == train


def test_chexpert_roots_beside_the_batches_are_told(tmp_path):
    root = tmp_path / "stanford/chexpertchestxrays-u20210408"
    write_chexpert(root, in_batches, csv=f"{BATCH_1}/train.csv")
    told = rf"there is .*/train.csv; set data.root={root}$"
    for wrong in (tmp_path, tmp_path / "stanford", root / BATCH.format("2 (train 1)")):
        with pytest.raises(InputError, match=told):
            load("chexpert", wrong)
    with pytest.raises(InputError, match=rf"is one batch of the download; set data.root={root}$"):
        load("chexpert", root / BATCH_1)


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("CheXpert-v1.0-small/", "train"),
        ("CheXpert-v1.0/", "train"),
        ("", "train"),
        ("CheXpert-v1.0-small/", "CheXpert-v1.0-small/train"),
    ],
)
def test_chexpert_paths_of_any_release_fit_the_folders_that_are_there(tmp_path, folder, place):
    paths = write_chexpert(tmp_path, lambda _: place, folder)
    assert files(load("chexpert", tmp_path), tmp_path) == paths


def write_chexlocalize(root, parts):
    """val_labels.csv says CheXpert-v1.0/valid, though its folder is val."""
    paths = {"val": "CheXpert-v1.0/valid/", "test": "test/"}
    for part in parts:
        names = [
            f"patient6454{i}/study1/view{v}.jpg" for i in "123" for v in ("1_frontal", "2_lateral")
        ]
        labels = dict.fromkeys(FINDINGS[1:], "0") | {"Edema": "1"}
        rows = [{"Path": paths[part] + name} | labels for name in names]
        write_rows(root / f"{part}_labels.csv", rows)
        touch(*(root / part / name for name in names))


@pytest.mark.parametrize("parts", [["val"], ["test"], ["val", "test"]])
def test_chexlocalize_alone_is_a_collection_to_evaluate_on(tmp_path, parts):
    root = tmp_path / "CheXpert"
    write_chexlocalize(root, parts)
    collection = load("chexpert", root, "Edema")
    splits = collection.table["split"].value_counts().to_dict()
    assert splits == ({"val": 6, "test": 6} if len(parts) == 2 else {"test": 6})
    assert {path.split("/")[0] for path in files(collection, root)} == {*parts}
    assert {*collection.table["view"]} == {"Frontal", "Lateral"}
    with pytest.raises(InputError, match=rf"holds no train.csv or .*; set data.root={root}$"):
        load("chexpert", tmp_path)


def test_chexpert_tables_of_one_split_are_not_read_twice(tmp_path):
    write_chexlocalize(tmp_path, ["test"])
    touch(tmp_path / "groundtruth.csv", tmp_path / "train_visualCheXbert.csv.gz")
    collection = load("chexpert", tmp_path, "Edema")
    assert unused(collection) == [POLICY.format("groundtruth.csv, train_visualCheXbert.csv.gz")]


# -------------------------------------------------------------------------------------- MIMIC-CXR
def write_mimic(root):
    tables = {
        "split": "dicom_id,study_id,subject_id,split\na1,50414267,10000032,test\n",
        "metadata": "dicom_id,subject_id,study_id,ViewPosition\na1,10000032,50414267,PA\n",
        "chexpert": f"subject_id,study_id,{','.join(FINDINGS)}\n10000032,50414267{',1.0' * 14}\n",
    }
    root.mkdir(parents=True)
    for name, text in tables.items():
        (root / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    touch(root / "files/p10/p10000032/s50414267/a1.jpg")


@pytest.mark.parametrize("release", ["2.0.0", "2.1.0"])
def test_mimic_download_tree_names_its_root(tmp_path, release):
    root = tmp_path / "physionet.org/files/mimic-cxr-jpg" / release
    write_mimic(root)
    for wrong in (tmp_path, tmp_path / "physionet.org", root.parent, root / "files/p10"):
        with pytest.raises(InputError, match=rf"2.0.0-split.csv, but there .*data.root={root}$"):
            load("mimic_cxr", wrong)
    assert load("mimic_cxr", root).table["split"].tolist() == ["test"]
    touch(root / "mimic-cxr-2.1.0-test-set-labeled.csv")
    said = [POLICY.format("mimic-cxr-2.1.0-test-set-labeled.csv")]
    assert unused(load("mimic_cxr", root)) == said


# --------------------------------------------------------------------------------------- PadChest
@pytest.mark.parametrize(
    ("cell", "place"),
    [
        ("{}.0", "{}"),
        ("{}", "{0}/{0}"),
        ("{}.0", "{0}/{0}"),
        ("{0}/{0}", "{0}/{0}"),
        ("{}", "images/{}"),
        ("{}", "images-224"),
        ("{}.0", "images-224/images-224"),
        ("", "images"),
        ("{}.0", "."),
    ],
)
def test_padchest_folders_in_all_their_spellings(tmp_path, cell, place):
    rows = real_rows(PADCHEST, 40)
    homes = [row["ImageDir"] for row in rows]
    cells = [row | {"ImageDir": cell.format(row["ImageDir"])} for row in rows]
    write_rows(tmp_path / PADCHEST, cells)
    expected = [str(Path(place.format(h), r["ImageID"])) for h, r in zip(homes, rows, strict=True)]
    touch(*(tmp_path / path for path in expected))
    assert files(load("padchest", tmp_path, "pneumonia", leave_out=[]), tmp_path) == expected


def test_padchest_sample(tmp_path):
    rows = real_rows(PADCHEST, 10)
    write_rows(tmp_path / "chest_x_ray_images_labels_sample.csv", rows)
    touch(*(tmp_path / row["ImageID"] for row in rows))
    assert len(load("padchest", tmp_path, "pneumonia", leave_out=[]).table) == 10


# ------------------------------------------------------------------- Kermany's films of children
def write_zhanglab(root):
    films = {
        "train/NORMAL": ["NORMAL-28501-0001", "NORMAL-28501-0002", "NORMAL-1003233-0001"],
        "train/PNEUMONIA": ["BACTERIA-7422-0001", "VIRUS-1980593-0001", "BACTERIA-40699-0001"],
        "test/NORMAL": ["NORMAL-4512-0001"],
        "test/PNEUMONIA": ["BACTERIA-40699-0002", "VIRUS-11218-0001"],
    }
    films = {f"{folder}/{name}.jpeg" for folder, names in films.items() for name in names}
    touch(*(root / "CellData/chest_xray" / film for film in films))
    for split in ("train", "test"):
        for name in ("CNV", "DME", "DRUSEN", "NORMAL"):
            touch(root / f"CellData/OCT/{split}/{name}/{name}-28501-1.jpeg")
    return films


def test_mendeley_third_version_beside_its_oct_images(tmp_path):
    films = write_zhanglab(tmp_path / "ZhangLabData")
    for place in ("", "ZhangLabData", "ZhangLabData/CellData", "ZhangLabData/CellData/chest_xray"):
        collection = load("kaggle_pneumonia", tmp_path / place, "Pneumonia", "Bacterial", "Viral")
        home = tmp_path / "ZhangLabData/CellData/chest_xray"
        assert {*files(collection, home)} == films - {"train/PNEUMONIA/BACTERIA-40699-0001.jpeg"}
    table = collection.table
    assert {*table["patient"]} == {"28501", "1003233", "7422", "1980593", "4512", "40699", "11218"}
    assert table[["Pneumonia", "Bacterial", "Viral"]].sum().tolist() == [4, 2, 2]


@pytest.mark.parametrize("place", ["ZhangLabData/CellData/OCT", "ZhangLabData/CellData/OCT/train"])
def test_oct_images_are_no_films(tmp_path, place):
    write_zhanglab(tmp_path / "ZhangLabData")
    with pytest.raises(InputError, match=r"lacks the folders train and test, .* use data=folder$"):
        load("kaggle_pneumonia", tmp_path / place)


def test_kermany_root_too_low_and_two_copies(tmp_path):
    write_zhanglab(tmp_path / "a")
    root = tmp_path / "a/CellData/chest_xray"
    for wrong in (root / "train", root / "train/NORMAL"):
        with pytest.raises(InputError, match=rf"lacks the folders .*; set data.root={root}$"):
            load("kaggle_pneumonia", wrong)
    write_zhanglab(tmp_path / "b")
    with pytest.raises(InputError, match=r"holds 2 copies of the collection: .*a/Cell.* and .*/b/"):
        load("kaggle_pneumonia", tmp_path)


@pytest.mark.parametrize("name", ["COVID19", "Tuberculosis", "UNKNOWN"])
def test_kermany_class_that_is_not_theirs_is_refused(tmp_path, name):
    write_zhanglab(tmp_path)
    touch(tmp_path / f"CellData/chest_xray/train/{name}/x.jpeg")
    with pytest.raises(
        InputError, match=rf"train/{name} is neither NORMAL nor PNEUMONIA; .*folder"
    ):
        load("kaggle_pneumonia", tmp_path / "CellData/chest_xray")


# ------------------------------------------------------------------------------------------ VinDr
def write_vindr(root, suffixes, folder="{}", tables=("train", "test")):
    for split in tables:
        rows = [{"image_id": f"{split}{i}", "rad_id": "R1", "Edema": str(i % 2)} for i in range(4)]
        write_rows(root / f"annotations/image_labels_{split}.csv", rows)
        for row in rows:
            for suffix in suffixes:
                touch(root / folder.format(split) / (row["image_id"] + suffix))


@pytest.mark.parametrize("folder", ["{}", "{0}/{0}"])
@pytest.mark.parametrize(
    ("suffixes", "read"),
    [
        ([".dicom", ".png"], ".dicom"),
        ([".png", ".dcm", ".jpg"], ".dcm"),
        (["", ".png"], ""),
        ([".png"], ".png"),
        ([".dicom", ".txt", ".json"], ".dicom"),
    ],
)
def test_vindr_reads_the_dicom_file_of_a_film(tmp_path, suffixes, read, folder):
    write_vindr(tmp_path, suffixes, folder)
    collection = load("vindr", tmp_path)
    assert {Path(path).suffix for path in collection.table["path"]} == {read}
    twice = [d.counts for d in collection.decisions if "another format" in d.policy]
    films = [suffix for suffix in suffixes if suffix not in (".txt", ".json")]
    assert twice == ([{"images": 8}] if len(films) > 1 else [])


@pytest.mark.parametrize("suffixes", [[".png", ".jpg"], [".dcm", ".dicom"], [".tif", ".png"]])
def test_vindr_two_files_of_a_film_are_refused(tmp_path, suffixes):
    write_vindr(tmp_path, suffixes)
    with pytest.raises(
        InputError, match=r"train0\..* and train/train0\..* are two files of one im"
    ):
        load("vindr", tmp_path)


def test_vindr_panel_alone_and_kaggle_table_beside(tmp_path):
    write_vindr(tmp_path / "panel", [".dicom"], tables=["test"])
    assert load("vindr", tmp_path / "panel").table["split"].tolist() == ["test"] * 4
    write_vindr(tmp_path / "both", [".dicom"])
    touch(tmp_path / "both/train.csv")
    assert unused(load("vindr", tmp_path / "both")) == [POLICY.format("train.csv")]
    for wrong in (tmp_path / "panel/test", tmp_path / "panel/annotations"):
        with pytest.raises(InputError, match=rf"set data.root={tmp_path}/panel$"):
            load("vindr", wrong)


# ------------------------------------------------------------------------------- COVID database
OLD = {"COVID-19": "COVID-19 ({}).png", "NORMAL": "NORMAL ({}).png"}


@pytest.mark.parametrize("parent", ["", "COVID-19 Radiography Database", "a/b"])
@pytest.mark.parametrize(
    "folders",
    [
        ("COVID-19", "NORMAL", "Viral Pneumonia"),
        ("COVID", "NORMAL", "Viral Pneumonia"),
        ("covid19", "normal", "Viral_Pneumonia"),
    ],
)
def test_covid_old_names(tmp_path, folders, parent):
    for number, name in enumerate(folders, start=1):
        touch(*(tmp_path / parent / name / f"{name} ({i}).png" for i in range(number)))
    touch(tmp_path / parent / "COVID-19.metadata.xlsx", tmp_path / parent / "README.md.txt")
    table = load("covid", tmp_path).table
    assert table[["COVID", "Viral Pneumonia"]].sum().tolist() == [1, 3]
    assert len(table) == 6


@pytest.mark.parametrize("names", [("COVID", "COVID-19"), ("NORMAL", "Normal")])
def test_covid_two_folders_of_a_class_are_refused(tmp_path, names):
    for name in {"COVID", "Normal", *names}:
        touch(tmp_path / name / "images/1.png")
    with pytest.raises(
        InputError, match=rf"two folders for the class .*: {names[0]} and {names[1]}"
    ):
        load("covid", tmp_path)


def test_covid_root_too_low(tmp_path):
    touch(tmp_path / "COVID/images/1.png", tmp_path / "Normal/images/1.png")
    for wrong in (tmp_path / "COVID", tmp_path / "COVID/images"):
        with pytest.raises(
            InputError, match=rf"lacks the folders COVID and .*data.root={tmp_path}$"
        ):
            load("covid", wrong)


# ------------------------------------------------------------------------------------ RSNA, SIIM
@pytest.mark.parametrize("folder", ["{0}_train_images", "{0}_train_images/{0}_train_images"])
@pytest.mark.parametrize("stage", ["stage_1", "stage_2"])
def test_rsna_stages(tmp_path, stage, folder):
    rows = real_rows("kaggle_stage_2_train_labels.csv", 20)
    write_rows(tmp_path / f"{stage}_train_labels.csv", rows)
    touch(*(tmp_path / folder.format(stage) / f"{row['patientId']}.dcm" for row in rows))
    collection = load("rsna", tmp_path)
    assert len(collection.table) == len({row["patientId"] for row in rows})
    assert not unused(collection)
    touch(tmp_path / "stage_1_detailed_class_info.csv")
    if stage == "stage_2":
        said = [POLICY.format("stage_1_detailed_class_info.csv")]
        assert unused(load("rsna", tmp_path)) == said


def test_siim_png_copy_one_level_too_high_and_other_tables(tmp_path):
    root = tmp_path / "siim-acr-pneumothorax"
    write_rows(root / "stage_1_train_images.csv", [{"new_filename": "1.png", "has_pneumo": "1"}])
    touch(root / "png_images/1.png")
    with pytest.raises(InputError, match=rf"there is .*stage_1_train_images.csv; .*root={root}$"):
        load("siim_pneumothorax", tmp_path)
    touch(root / "train-rle.csv", root / "stage_2_train.csv")
    said = [POLICY.format("stage_2_train.csv, train-rle.csv")]
    assert unused(load("siim_pneumothorax", root)) == said
