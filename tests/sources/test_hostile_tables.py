"""Tables that are damaged, or written by other programs: read as they are meant, or refused."""

import gzip
import io
import os
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.errors import InputError
from tests.support.collections import touch

PLAIN = "file,who,Edema\na.png,p1,1\nb.png,p1,0\nc d.png,ä2,\n"


def zipped(**files):
    packed = io.BytesIO()
    with ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return packed.getvalue()


def parquet(**columns):
    packed = io.BytesIO()
    pd.DataFrame(columns).to_parquet(packed)
    return packed.getvalue()


def load(root, table, **keys):
    (root / "studies.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    touch(root / "a.png", root / "b.png", root / "c d.png")
    given = {"csv": "studies.csv", "path_column": "file", "labels": ["Edema"]}
    return sources.load("table", root, **(given | {"patient_column": "who"} | keys)).table


MEANT = {
    "Windows line ends": PLAIN.replace("\n", "\r\n"),
    "old Mac line ends": PLAIN.replace("\n", "\r"),
    "byte order mark": "\ufeff" + PLAIN,
    "semicolons": PLAIN.replace(",", ";"),
    "semicolons, commas in a name": PLAIN.replace(",", ";").replace("who", 'who;"a,b"').replace(
        "p1", "p1;"
    ).replace("ä2", "ä2;"),
    "tabs": PLAIN.replace(",", "\t"),
    "a name with the other separator": PLAIN.replace("who", "who,year;age").replace(
        "p1", "p1,"
    ).replace("ä2", "ä2,"),
    "UTF-16, as Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "UTF-16, big-endian": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "quoted cells": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in PLAIN.splitlines()
    ),
    "a line break in a quoted cell of a column that is not used": PLAIN.replace(
        "who", "who,note"
    ).replace("p1", 'p1,"x\ny"').replace("ä2", "ä2,"),
    "empty lines": PLAIN.replace("\n", "\n\n"),
    "no line end at the end": PLAIN.rstrip("\n"),
    "gzip": gzip.compress(PLAIN.encode()),
    "zip": zipped(x=PLAIN),
    "Parquet": parquet(
        file=["a.png", "b.png", "c d.png"], who=["p1", "p1", "ä2"], Edema=[1, 0, None]
    ),
    "numbers of a spreadsheet": PLAIN.replace(",1\n", ",1.0\n").replace(",0\n", ", 0.0 \n"),
}  # fmt: skip


@pytest.mark.parametrize("table", MEANT.values(), ids=MEANT)
def test_is_read_as_it_is_meant(tmp_path, table):
    found = load(tmp_path, table)
    assert [os.path.basename(path) for path in found["path"]] == ["a.png", "b.png", "c d.png"]
    assert found["patient"].tolist() == ["p1", "p1", "ä2"]
    np.testing.assert_array_equal(found["Edema"], [1, 0, np.nan])


@pytest.mark.parametrize(
    ("cells", "patients"),
    [
        (("11.0", " 11", "011.0"), ["11", "11", "011"]),
        (("11.0", "", "12"), ["11", "b.png", "12"]),
        (("1.1.0", "p11.0", "11.00"), ["1.1.0", "p11.0", "11.00"]),
    ],
)
def test_a_number_is_one_patient_however_it_is_spelled(tmp_path, cells, patients):
    """pandas writes 11 as 11.0 where a cell of the column is empty; leading zeros are meant."""
    table = "file,who,Edema\na.png,{},1\nb.png,{},0\nc d.png,{},1\n".format(*cells)
    assert load(tmp_path, table, on_missing_patient="own")["patient"].tolist() == patients


READ = r"cannot read .*studies.csv: "
CELL = r"studies.csv: column '{}' holds {} in row {} "
REFUSED = {
    "empty file": ("", READ + "it is empty"),
    "only line ends": ("\r\n\r\n", READ + "it is empty"),
    "empty first row": ("   \na.png,p1,1\n", READ + "its first row names no column"),
    "header only": ("file,who,Edema\n", "studies.csv has no rows below its header"),
    "no header": ("a.png,p1,1\nb.png,p1,0\n", "data.path_column needs .*'file'; .*a.png, p1"),
    "longer row": ("file,who,Edema\na.png,p1,1,9\n", READ + "row 2 has 4 cells, but the"),
    "shorter row": (PLAIN + "a.png,p1\n", READ + "row 5 has 2 cells, but the header has 3"),
    "more cells in every row": ("file,who,Edema\na.png,p1,1,\n", READ + "row 2 has 4 cells"),
    "quotation mark not closed": ('file,who,Edema\n"a.png,p1,1\n', READ + "row 2 .*quotation mark"),
    "quotation mark not closed in a long file": (
        'file,who,Edema\n"a.png,p1,1\n' + "b.png,p1,0\n" * 900_000,
        READ + "a row is longer than .*quotation mark",
    ),
    "quotation mark not closed in the header": ('file,"who,Edema\n', READ + "a quotation mark in"),
    "Latin-1": (PLAIN.encode("latin-1"), READ + "row 4 is not UTF-8; save it as CSV UTF-8"),
    "Latin-1 in the header": ("file,wähler\n".encode("latin-1"), READ + "it is not UTF-8"),
    "UTF-16 without its mark": (PLAIN.encode("utf-16-le"), READ + "it holds NUL"),
    "NUL in a cell": (PLAIN.replace("b.png", "b\0.png"), READ + "column 'file' holds NUL"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", READ + "it is not UTF-8"),
    "zero bytes": (bytes(5000), READ + "it holds NUL"),
    "Excel workbook": (zipped(**{"[Content_Types].xml": "", "xl__x.xml": ""}), READ + ".* Excel"),
    "old Excel workbook": (b"\xd0\xcf\x11\xe0" + bytes(600), READ + "it is an Excel workbook"),
    "zip of two tables": (zipped(a=PLAIN, b=PLAIN), READ + "it is a zip of 2 files"),
    "damaged zip": (zipped(a=PLAIN)[:60], READ),
    "damaged gzip": (gzip.compress(PLAIN.encode())[:40], READ),
    "damaged Parquet": (parquet(file=["a.png"], who=["p"], Edema=[1])[:-40], READ),
    "Parquet with a list": (parquet(file=[["a"]], who=["p"], Edema=[1]), READ),
    "endless first row": ("a" * 3_000_000, READ + "its first row is longer than 1,048,576 bytes"),
    "100,000 columns": (",".join(["x"] * 100_000) + "\n", READ + "it has 100,000 columns"),
    "two columns of a name": ("file,who,Edema,Edema\na.png,p1,1,0\n", "2 columns .* 'Edema'; re"),
    "two separators": ("file,who;Edema\na.png,p1;1\n", "holds commas and semicolons; put"),
    "another separator": (PLAIN.replace(",", "|"), r"has the columns file\|who\|Edema"),
    "labels in words": (PLAIN.replace("1\n", "yes\n"), CELL.format("Edema", "'yes'", 2) + ".*1 .p"),
    "labels true": (PLAIN.replace("1\n", "True\n"), CELL.format("Edema", "'True'", 2)),
    "label of another number": (PLAIN.replace("1\n", "2\n"), CELL.format("Edema", "'2'", 2)),
    "decimal comma": (
        PLAIN.replace(",", ";").replace("1\n", "1,0\n"),
        CELL.format("Edema", "'1,0'", 2),
    ),
    "NaN in words": (PLAIN.replace(",\n", ",nan\n"), CELL.format("Edema", "'nan'", 4)),
    "endless cell": (PLAIN.replace("1\n", "9" * 100_000 + "\n"), r"'9{40}\.\.\.' in row 2"),
    "no patient": (PLAIN.replace("p1,0", ",0"), CELL.format("who", "''", 3) + ".*needs a patient"),
    "no path": (PLAIN.replace("b.png", " "), CELL.format("file", "' '", 3) + ".*path of an image"),
    "Windows paths": (PLAIN.replace("b.png", r"x\b.png"), CELL.format("file", r"'x\\+b.png'", 3)),
    "row twice": (PLAIN + "a.png,p1,1\n", r"images listed more than once \(1\): .*a.png"),
    "rows that disagree": (PLAIN + "a.png,p1,0\n", r"images listed more than once \(1\): .*a.png"),
    "same file, written otherwise": (PLAIN + "./x/../a.png,p1,0\n", "images listed more than once"),
    "no such image": (PLAIN + "e.png,p1,0\n", r"images not on disk \(1 of 4\): .*e.png"),
    "a folder for an image": (PLAIN + ".,p1,0\n", "images not on disk|outside"),
    "name too long": (PLAIN + "e" * 5000 + ",p1,0\n", "images not on disk"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "message"), REFUSED.values(), ids=REFUSED)
def test_is_refused_in_one_sentence(tmp_path, table, message):
    with pytest.raises(InputError, match=message) as told:
        load(tmp_path, table)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 12_000


def test_a_folder_for_a_table_is_refused(tmp_path):
    (tmp_path / "studies").mkdir()
    with pytest.raises(InputError, match=r"data.csv: there is no file .*studies"):
        sources.load("table", tmp_path, ["Edema"], csv="studies", path_column="file")


def test_only_blank_labels_are_told(tmp_path):
    table = "file,who,Edema\na.png,p1,\nb.png,p2,\n"
    assert load(tmp_path, table)["Edema"].isna().all()
    with pytest.raises(InputError, match=r"data.labels is not set; the columns .* are: none"):
        load(tmp_path, table, labels=None)


@pytest.fixture
def places(tmp_path):
    """A data set, and an image outside it that its rows or its links lead to."""
    root = tmp_path / "root"
    touch(tmp_path / "beside/secret.png", tmp_path / "root2/near.png", root / "own.png")
    (root / "link.png").symlink_to(tmp_path / "beside/secret.png")
    (root / "folder").symlink_to(tmp_path / "beside")
    (root / "inner.png").symlink_to(root / "own.png")
    return root


@pytest.mark.parametrize(
    "path",
    [
        "../beside/secret.png",
        "folder/../../beside/secret.png",
        "../root2/near.png",
        "{}/beside/secret.png",
    ],
)
@pytest.mark.parametrize("follow_links", [False, True])
def test_no_path_leads_out_of_the_root(places, path, follow_links):
    path = path.format(places.parent)
    with pytest.raises(
        InputError, match=r"images outside data\.root=.* \(1\): .* correct their paths"
    ):
        load(places, f"file,who,Edema\nown.png,p1,1\n{path},p2,0\n", follow_links=follow_links)


@pytest.mark.parametrize("path", ["link.png", "folder/secret.png"])
def test_no_link_leads_out_of_the_root_unless_trusted(places, path):
    table = f"file,who,Edema\nown.png,p1,1\n{path},p2,0\n"
    with pytest.raises(
        InputError, match=r"links point to images outside data\.root=.* \(1\): .*follow_links=true"
    ):
        load(places, table)
    assert len(load(places, table, follow_links=True)) == 2


def test_links_are_followed_when_they_are_trusted(places):
    table = "file,who,Edema\ninner.png,p1,1\nlink.png,p2,0\nfolder/secret.png,p2,0\n"
    assert len(load(places, table, follow_links=True)) == 3
    inside = f"file,who,Edema\ninner.png,p1,1\n{places}/own.png,p2,0\n"
    assert len(load(places, inside)) == 2
