"""Every file below the root is used, or left out for a reason that is counted."""

import os
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from fluoroscope.files.file_kinds import HEAD_BYTES, NOT_READ, kind_of
from fluoroscope.sources.reading.tree import IMAGE_SUFFIXES, film_key, look_through
from tests.support.collections import WRITERS, touch

DICOM = b"\0" * 128 + b"DICM"
CLASSES = ("NORMAL", "PNEUMONIA")


def encoded(suffix):
    return cv2.imencode(suffix, np.arange(300, dtype=np.uint8).reshape(15, 20))[1].tobytes()


PNG, JPEG, BMP, TIFF = map(encoded, (".png", ".jpg", ".bmp", ".tif"))


def write(root, **contents):
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def grid(root, *levels, count=2, suffix=".png"):
    """Empty images in the folders of all combinations of the names, with names of their own."""
    folders = [root]
    for names in levels:
        folders = [folder / name for folder in folders for name in names]
    touch(*(f / f"{'-'.join(f.parts[-2:])}{i}{suffix}" for f in folders for i in range(count)))


def said(collection):
    return {decision.policy.split(":")[0]: decision.counts for decision in collection.decisions}


def tally(collection):
    return sum(collection.table[label].sum() for label in label_columns(collection.table))


# ------------------------------------------------------------------------------- told by content
@pytest.mark.parametrize(
    "name", ["1", "1.jfif", "1.dat", "1.2.840.113619.7", "1.IMA", "1.PNG ", "1.txt", "1.json"]
)
@pytest.mark.parametrize(
    "content", [PNG, JPEG, BMP, TIFF, DICOM], ids=["png", "jpg", "bmp", "tif", "dcm"]
)
def test_films_of_any_name_are_found_by_their_content(tmp_path, name, content):
    grid(tmp_path, CLASSES)
    (tmp_path / "PNEUMONIA" / name).write_bytes(content)
    collection = sources.load("folder", tmp_path)
    assert len(collection.table) == 5
    assert tally(collection) == 3
    assert "other files below data.root" not in said(collection)


def test_what_is_no_image_is_counted_by_kind_without_names(tmp_path):
    grid(tmp_path, CLASSES)
    touch(*(tmp_path / name for name in ("a.csv", "NORMAL/b.CSV", "NORMAL/Thumbs.db", "empty")))
    write(tmp_path, **{"NORMAL__note.Smith": b"BM is not always a bitmap", "x.zip": b"PK"})
    counts = said(sources.load("folder", tmp_path))["other files below data.root"]
    assert counts == {"csv": 2, "other files": 3 - 1, "small copies": 1, "zip": 1}


FOREIGN = {
    "WebP": b"RIFF\0\0\0\0WEBPVP8 ",
    "GIF": b"GIF89a",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "HEIC or AVIF": b"\0\0\0\x18ftypheic",
    "NIfTI": b"\0" * 344 + b"n+1\0",
    "NRRD": b"NRRD0004",
    "HDF5": b"\x89HDF\r\n",
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_formats_that_are_not_read_are_refused_among_films(tmp_path, kind):
    grid(tmp_path, CLASSES)
    (tmp_path / "NORMAL/1.xyz").write_bytes(FOREIGN[kind])
    with pytest.raises(InputError, match=rf"contains 1 {kind} file, .* 'data.exclude=\[\*.xyz\]'"):
        sources.load("folder", tmp_path)
    assert len(sources.load("folder", tmp_path, exclude=["*.xyz"]).table) == 4


def test_a_table_of_contents_of_dicom_is_no_film(tmp_path):
    grid(tmp_path, CLASSES)
    write(tmp_path, **{"NORMAL__p1__DICOMDIR": DICOM, "NORMAL__p1__DICOM__IM1": DICOM})
    collection = sources.load("folder", tmp_path)
    assert len(collection.table) == 5
    assert said(collection)["other files below data.root"] == {"dicomdir": 1}


def test_no_text_is_taken_for_an_image():
    for text in (b"BMI,age\n22,40\n" * 30, b"II. Methods", b"MM", b"", b"\x08", b"DICM" * 9):
        assert kind_of(text[:HEAD_BYTES]) == "", text[:20]


# ---------------------------------------------------------------- helper folders, links, patterns
@pytest.mark.parametrize(
    "helper",
    [
        *(
            "__MACOSX/._1.png",
            "@eaDir/NORMAL0.png/SYNOPHOTO_THUMB_M.jpg",
            ".ipynb_checkpoints/1.png",
        ),
        *("thumbnails/1.jpg", "Previews/1.png", ".hidden/deep/1.png", "$RECYCLE.BIN/1.png"),
        *("#recycle/1.dcm", ".@__thumb/1.jpg", "lost+found/1.png", "1_thumb.jpg", "._1.png"),
    ],
)
@pytest.mark.parametrize("place", [".", "NORMAL", "train/NORMAL"])
def test_helper_folders_and_small_copies_are_counted_and_not_used(tmp_path, helper, place):
    grid(tmp_path, *([["train", "test"]] if "train" in place else []), CLASSES, count=1)
    films = len(sources.load("folder", tmp_path).table)
    touch(tmp_path / place / helper)
    collection = sources.load("folder", tmp_path)
    assert len(collection.table) == films
    assert sum(said(collection)["other files below data.root"].values()) == 1


def test_links_are_not_walked_in_circles_and_lead_out_only_if_allowed(tmp_path):
    grid(tmp_path / "in", CLASSES)
    touch(tmp_path / "out/1.png")
    (tmp_path / "in/NORMAL/up").symlink_to(tmp_path / "in/PNEUMONIA")
    (tmp_path / "in/PNEUMONIA/down").symlink_to(tmp_path / "in/NORMAL")
    (tmp_path / "in/out").symlink_to(tmp_path / "out")
    assert len(look_through(tmp_path / "in").images) == 4 + 2 + 2 + 1
    assert len(look_through(tmp_path / "in", follow_links=False).images) == 4 + 2 + 2


def test_a_pattern_leaves_out_files_and_folders_in_any_case(tmp_path):
    grid(tmp_path, CLASSES, count=3)
    touch(*(tmp_path / c / f"Extra/{n}.png" for c in CLASSES for n in "ab"), tmp_path / "x.txt")
    out = sources.load("folder", tmp_path, exclude=["extra", "*mal0.PNG"])
    assert len(out.table) == 5
    assert said(out)["data.exclude"] == {"extra": 4, "*mal0.PNG": 1}
    assert len(sources.load("folder", tmp_path, exclude=["NORMAL/extra"]).table) == 8
    with pytest.raises(InputError, match=r"no file or folder below .* matches 'extras'"):
        sources.load("folder", tmp_path, exclude=["extra", "extras"])


# ------------------------------------------------------------------------- the account is complete
@pytest.mark.parametrize("seed", range(6))
def test_used_and_counted_files_are_all_files(tmp_path, seed):
    rng = random.Random(seed)
    grid(tmp_path, CLASSES)
    folders = [
        "",
        "NORMAL",
        "PNEUMONIA",
        "NORMAL/p1/s1",
        "@eaDir",
        "PNEUMONIA/.x",
        "Extra",
        "deep/a",
    ]
    names = [
        "{}.png",
        "{}.JPG",
        "{}.csv",
        "{}",
        "{}.weird",
        ".{}",
        "{}_thumb.png",
        "{}.pdf",
        "{}.h5",
    ]
    for number in range(40):
        path = tmp_path / rng.choice(folders) / rng.choice(names).format(f"f{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.choice([b"", b"text", DICOM, PNG]))
    touch(tmp_path / "Extra/x.png")
    collection = sources.load("folder", tmp_path, exclude=["extra"])
    counts = [sum(d.counts.values()) for d in collection.decisions if d.policy[:8] != "patients"]
    on_disk = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(collection.table) + sum(counts) == len(on_disk)


def test_images_that_no_row_names_are_counted_for_a_table(tmp_path):
    touch(*(tmp_path / f"images/{n}.png" for n in "abcde"), tmp_path / "old/a.dcm")
    (tmp_path / "t.csv").write_text("path,Edema\nimages/a.png,1\nimages/b.png,0\n")
    collection = sources.load("table", tmp_path, csv="t.csv", path_column="path", labels=["Edema"])
    assert said(collection)["images that no row of the table names"] == {"images": 4}
    assert said(collection)["other files below data.root"] == {"csv": 1}


# ------------------------------------------------------------------- films under another name
@pytest.mark.parametrize(
    ("listed", "file"),
    [
        *(("a.png", "a.PNG"), ("a.png", "A.png"), ("a.png", "a.jpg"), ("a.dcm.dcm", "a.dcm")),
        *(("a.dcm", "a"), ("a.dcm", "a.jfif"), ("images/a.png", "Images/a.png"), ("a", "a.png")),
        *(("x/00000001_000.png", "images_004/00000001_000.jpg"), ("1.2.840.9", "b/1.2.840.9.dcm")),
    ],
)
def test_a_film_is_found_without_suffix_and_case(tmp_path, listed, file):
    touch(tmp_path / file, tmp_path / "b.png")
    (tmp_path / file).write_bytes(PNG)
    (tmp_path / "t.csv").write_text(f"path,Edema\n{listed},1\nb.png,0\n")
    collection = sources.load("table", tmp_path, csv="t.csv", path_column="path", labels=["Edema"])
    assert collection.table["path"].tolist() == [str(tmp_path / file), str(tmp_path / "b.png")]
    policy = "images found under another suffix, case or folder than the table has"
    assert said(collection)[policy] == {"images": 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["a.jpg", "a.dcm"],
            r"1 images of the table .* several others: .*a.dcm, .*a.jpg; keep one",
        ),
        (["other/a.png"], r"not on disk \(1 of 2\)"),  # a short name in another folder
        (["masks/a.png", "c.png"], r"not on disk \(1 of 2\)"),
    ],
)
def test_a_film_that_may_be_another_is_refused(tmp_path, files, message):
    touch(*(tmp_path / file for file in files), tmp_path / "b.png")
    (tmp_path / "t.csv").write_text("path,Edema\na.png,1\nb.png,0\n")
    with pytest.raises(InputError, match=message):
        sources.load("table", tmp_path, csv="t.csv", path_column="path", labels=["Edema"])


def test_a_mask_is_not_found_in_place_of_its_film(tmp_path):
    touch(tmp_path / "masks/00000001_000.png", tmp_path / "00000002_000.png")
    (tmp_path / "t.csv").write_text("path,Edema\n00000001_000.png,1\n00000002_000.png,0\n")
    with pytest.raises(InputError, match=r"not on disk \(1 of 2\)"):
        sources.load("table", tmp_path, csv="t.csv", path_column="path", labels=["Edema"])


def test_every_suffix_is_left_off_a_name():
    assert {film_key(f"A{suffix.upper()}{suffix}") for suffix in IMAGE_SUFFIXES} == {"a"}


# ----------------------------------------------------------------------------------- every source
RENAMED = {
    "another suffix": lambda path: path.with_suffix({".png": ".jpg"}.get(path.suffix, ".png")),
    "a name in upper case": lambda path: path.with_name(path.name.upper()),
    "a suffix in upper case": lambda path: path.with_suffix(path.suffix.upper()),
    "a suffix of a JPEG": lambda path: path.with_suffix(".jfif"),
    "no suffix": lambda path: path.with_suffix(""),
    "the suffix twice": lambda path: path.with_name(path.name + path.suffix),
}
KEYS = {
    "table": {"csv": "studies.csv", "path_column": "path", "labels": ["Effusion"]},
    "medmnist": {"size_px": 64},
}


@pytest.fixture(scope="module")
def collections(films, tmp_path_factory):
    """The films as each source expects them, and what the source reads."""
    home = tmp_path_factory.mktemp("collections")
    roots = {source: write(films, home / source) for source, write in WRITERS.items()}
    return {s: (root, sources.load(s, root, **KEYS.get(s, {}))) for s, root in roots.items()}


@pytest.mark.parametrize(
    "change",
    [
        *("another suffix", "a name in upper case"),
        *(pytest.param(change, marks=pytest.mark.whole) for change in [*RENAMED][2:]),
    ],
)
@pytest.mark.parametrize("source", sorted({*WRITERS} - {"medmnist"}))
def test_every_source_finds_renamed_films(collections, tmp_path, source, change):
    root, before = collections[source]
    shutil.copytree(root, tmp_path / "copy")
    for path in (*before.table["path"], *before.aside):
        file = tmp_path / "copy" / Path(path).relative_to(root)
        file.rename(RENAMED[change](file))
    after = sources.load(source, tmp_path / "copy", **KEYS.get(source, {}))
    labels = label_columns(before.table)
    assert len(after.table) == len(before.table)
    assert after.table[labels].sum().tolist() == before.table[labels].sum().tolist()
    assert after.table["patient"].nunique() == before.table["patient"].nunique()
    assert set(after.table["path"].map(Path).map(Path.exists)) == {True}


@pytest.mark.parametrize("source", sorted({*WRITERS} - {"medmnist"}))
def test_every_source_counts_what_it_does_not_use(collections, tmp_path, source):
    root, before = collections[source]
    shutil.copytree(root, tmp_path / "copy")
    extra = ["README.pdf", "@eaDir/x.jpg", "__MACOSX/._x.png", "thumbs/x.png"]
    touch(*(tmp_path / "copy" / name for name in (*extra, "overlays/x.png")))
    keys = KEYS.get(source, {}) | ({"exclude": ["overlays"]} if source == "folder" else {})
    after = sources.load(source, tmp_path / "copy", **keys)
    more = total(after) - total(before)
    assert len(after.table) == len(before.table)
    assert more == len(extra) + 1


def total(collection):
    """Number of files that the account of a collection counts."""
    account = ("images that no row", "other files below", "data.exclude")
    counts = [d.counts for d in collection.decisions if d.policy.startswith(account)]
    return sum(sum(count.values()) for count in counts)


# ----------------------------------------------------------------- bounds and closed folders
def test_a_huge_root_is_counted_to_a_bound(tmp_path):
    touch(*(tmp_path / f"{i}.png" for i in range(9)))
    tree = look_through(tmp_path, most=4)
    assert len(tree.images) == 4
    assert list(tree.others.values()) == ["and all files after the first 4"]


def test_a_closed_folder_stops_class_folders_and_is_counted_beside_a_table(tmp_path, monkeypatch):
    grid(tmp_path, CLASSES)
    (tmp_path / "NORMAL/closed").mkdir()
    (tmp_path / "t.csv").write_text("path,Edema\nNORMAL/NORMAL0.png,1\n")
    (tmp_path / "NORMAL/NORMAL0.png").touch()
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"NORMAL/closed: Permission denied; check data.root"):
        sources.load("folder", tmp_path)
    collection = sources.load("table", tmp_path, csv="t.csv", path_column="path", labels=["Edema"])
    counts = said(collection)["other files below data.root"]
    assert counts == {"csv": 1, "folders that cannot be opened": 1}
