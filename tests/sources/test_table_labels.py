"""Labels of a user's table in words, in one column of findings, and in a second file."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from tests.sources.test_ids import said
from tests.support.collections import touch, write_nih14
from tests.support.films import config

nan = np.nan


def load(root, columns, **keys):
    """A collection of a table with these columns, one image per row."""
    length = len(next(iter(columns.values())))
    names = [f"{number}.png" for number in range(length)]
    touch(*(root / name for name in names))
    pd.DataFrame({"path": names} | columns).to_csv(root / "studies.csv", index=False)
    given = {"csv": "studies.csv", "path_column": "path", "labels": None}
    return sources.load("table", root, **(given | keys))


def labels_of(collection):
    return {name: collection.table[name].tolist() for name in label_columns(collection.table)}


def assert_labels(collection, **expected):
    found = labels_of(collection)
    assert list(found) == list(expected)
    np.testing.assert_array_equal([*found.values()], [*expected.values()])


# ---------------------------------------------------------------------------------------- words
@pytest.mark.parametrize(
    ("positive", "cells", "values"),
    [
        (["yes"], ["yes", "No", "", " YES "], [1, 0, nan, 1]),
        (["true"], ["True", "False", "TRUE", "f"], [1, 0, 1, 0]),
        (["present", "1"], ["Present", "absent", "1.0", "0"], [1, 0, 1, 0]),
        (["malignant"], ["malignant", "negative", "neg", "0.0"], [1, 0, 0, 0]),
        (["2", "3"], ["2", "3.0", "0", "no"], [1, 1, 0, 0]),
        (["absent"], ["absent", "no", "n", ""], [1, 0, 0, nan]),  # of breath sounds
    ],
)
def test_words_mean_present(tmp_path, positive, cells, values):
    found = load(tmp_path, {"Edema": cells}, labels=["Edema"], positive=positive)
    assert_labels(found, Edema=values)


@pytest.mark.parametrize("cell", ["maybe", "1", "unknown", "nan", "-1"])
def test_any_other_word_is_refused_and_the_known_ones_are_listed(tmp_path, cell):
    message = (
        rf"column 'Edema' holds '{cell}' in row 3 .*; present is yes, ja \(data.positive\), absent "
        "is no, n, false, f, absent, negative, neg, 0, and an empty cell is unknown"
    )
    with pytest.raises(InputError, match=message):
        load(tmp_path, {"Edema": ["yes", cell]}, labels=["Edema"], positive=["yes", "ja"])


def test_words_can_be_uncertain(tmp_path):
    keys = {"labels": ["Edema"], "positive": ["yes"], "uncertain": "soft", "blank": "zero"}
    found = load(tmp_path, {"Edema": ["yes", "-1", "", "no", "-1.0"]}, **keys)
    assert_labels(found, Edema=[1, 0.7, 0, 0, 0.7])


def test_a_word_without_the_key_is_refused_and_names_it(tmp_path):
    with pytest.raises(InputError, match=r"words are read with data.positive, .*positive=\[yes\]'"):
        load(tmp_path, {"Edema": ["yes", "no"]}, labels=["Edema"])


def test_columns_of_words_are_listed(tmp_path):
    columns = {"Edema": ["yes", "no"], "note": ["a", "b"], "empty": ["", ""]}
    with pytest.raises(InputError, match=r"with only the words of data.positive.* are: Edema$"):
        load(tmp_path, columns, positive=["yes"])
    with pytest.raises(InputError, match=r"are: none; words .* data.positive.* data.label_column"):
        load(tmp_path, columns)


# ---------------------------------------------------------------------- one column of findings
def test_each_category_is_a_label(tmp_path):
    kinds = ["Edema", "normal", "Mass", "", "Edema "]
    found = load(tmp_path, {"kind": kinds}, label_column="kind")
    assert_labels(found, Edema=[1, 0, 0, nan, 1], Mass=[0, 0, 1, nan, 0])
    chosen = load(tmp_path, {"kind": kinds}, label_column="kind", labels=["Mass", "normal"])
    assert_labels(chosen, Mass=[0, 0, 1, nan, 0], normal=[0, 1, 0, nan, 0])
    filled = load(tmp_path, {"kind": kinds}, label_column="kind", labels=["Mass"], blank="zero")
    assert_labels(filled, Mass=[0, 0, 1, 0, 0])
    assert [decision.counts for decision in said(filled)[1:]] == [{"Mass": 1}]


def test_two_categories_are_one_label_as_two_folders_are(tmp_path):
    found = load(tmp_path, {"kind": ["benign", "malignant", "benign"]}, label_column="kind")
    assert_labels(found, malignant=[0, 1, 0])
    for folder, name in (("benign", "a"), ("malignant", "b")):
        touch(tmp_path / "tree" / folder / f"{name}.png")
    assert label_columns(sources.load("folder", tmp_path / "tree").table) == ["malignant"]


@pytest.mark.parametrize(("word", "mark"), [("pipe", "|"), ("semicolon", ";"), ("comma", ",")])
def test_findings_are_separated(tmp_path, word, mark):
    cells = [f"Edema{mark}Mass", "No Finding", f"Mass{mark} Edema{mark}", "", "Pneumonia, viral"]
    if mark == ",":
        cells[4] = "Pneumonia"
    found = load(tmp_path, {"found": cells}, label_column="found", label_separator=word)
    last = cells[4]
    expected = {"Edema": [1, 0, 1, nan, 0], "Mass": [1, 0, 1, nan, 0], last: [0, 0, 0, nan, 1]}
    assert_labels(found, **expected)


def test_the_real_findings_of_nih_are_read_as_the_source_reads_them(films, tmp_path):
    root = write_nih14(films, tmp_path / "nih")
    meant = sources.load("nih14", root, ["Pneumonia", "Infiltration"]).table
    keys = {"csv": "Data_Entry_2017_v2020.csv", "path_column": "Image Index"}
    pd.read_csv(root / keys["csv"], dtype=str).assign(
        **{"Image Index": lambda rows: "images/" + rows["Image Index"]}
    ).to_csv(root / keys["csv"], index=False)
    found = sources.load(
        *("table", root, ["Pneumonia", "Infiltration"]),
        **keys,
        **{"patient_column": "Patient ID", "view_column": "View Position"},
        **{"label_column": "Finding Labels", "label_separator": "pipe"},
    )
    pd.testing.assert_frame_equal(found.table, meant.drop(columns=["sex", "age"]))


@pytest.mark.parametrize(
    ("cells", "keys", "message"),
    [
        (["Edema|Mass", "Mass"], {}, r"'Edema\|Mass'; .*set data.label_separator=pipe, otherwise"),
        (["a;b", "c"], {"label_separator": "pipe"}, "set data.label_separator=semicolon, other"),
        (["Edema", "edema"], {}, "spells findings in several ways: Edema, edema; keep one"),
        (["Edema", "None"], {}, r"holds 'None' in row 3 .*says No Finding and nothing else, or"),
        (["Edema", "n/a"], {}, r"holds 'n/a' in row 3"),
        (["Edema", "['Mass']"], {}, r"holds \"\['Mass'\]\" in row 3"),
        (
            ["Edema|No Finding", "Mass"],
            {"label_separator": "pipe"},
            r"in row 2 .*No Finding and no",
        ),
        (["normal", ""], {}, "has 1 different findings; choose those to learn with data.labels"),
        (
            [f"text {i}" for i in range(200)],
            {},
            "has 200 different findings; choose those to learn",
        ),
        (["Edema", "Mass"], {"labels": ["Edma"]}, "data.labels must be one of .*mean 'Edema'"),
        (["Edema", "Mass"], {"label_column": "kinds"}, "label_column needs .*'kinds'.*mean 'kind'"),
        (["Edema", "Mass"], {"positive": ["yes"]}, "data.positive is for .*; remove one of them"),
    ],
)
def test_a_column_of_findings_that_is_unclear_is_refused(tmp_path, cells, keys, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, {"kind": cells}, **({"label_column": "kind"} | keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label_separator": "pipe"}, "data.label_separator=pipe needs data.label_column"),
        ({"label_key": "id"}, "data.label_key=id needs data.label_csv"),
        ({"positive": []}, "data.positive is empty"),
        ({"positive": [" "]}, "data.positive is empty"),
        ({"label_separator": "|"}, r"data.label_separator must be one of comma, none, pipe, semi"),
        ({"label_csv": "no.csv"}, r"data.label_csv: there is no file .*no.csv"),
    ],
)
def test_keys_that_miss_another_are_refused(tmp_path, keys, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, {"Edema": ["1", "0"]}, **({"labels": ["Edema"]} | keys))


# ------------------------------------------------------------------------------- a second file
def test_labels_of_a_second_file_are_joined_by_a_key(tmp_path):
    """Two images of one study, an image of an unknown study, a study without images."""
    (tmp_path / "labels.csv").write_text("Edema,study,Mass\n1,50414267.0,\n0,7,1\n,9,1\n")
    studies = {"study": ["50414267", "7.0", " 50414267", "8"]}
    keys = {"label_csv": "labels.csv", "label_key": "study"}
    found = load(tmp_path, studies, labels=["Edema", "Mass"], **keys)
    assert_labels(found, Edema=[1, 0, 1, nan], Mass=[nan, 1, nan, nan])
    assert [decision.counts for decision in said(found)[1:3]] == [{"images": 1}, {"rows": 1}]
    filled = load(tmp_path, studies, labels=["Mass"], blank="zero", **keys)
    assert_labels(filled, Mass=[0, 1, 0, nan])
    assert said(filled)[-1].counts == {"Mass": 2}  # of images, not of rows of the file


def test_the_second_file_is_found_joined_and_read_in_every_form(tmp_path):
    (tmp_path / "names.tsv").write_text("path\tfound\n0.png\tEdema;Mass\n1.png\tNo Finding\n")
    keys = {"label_csv": "names.tsv", "label_column": "found", "label_separator": "semicolon"}
    found = load(tmp_path, {"id": ["a", "b"]}, **keys)  # the key is the path
    assert_labels(found, Edema=[1, 0], Mass=[1, 0])
    (tmp_path / "words.csv").write_text("id,Edema\na,ja\nb,no\n")
    keys = {"label_csv": "words.csv", "label_key": "id", "positive": ["ja"]}
    assert_labels(load(tmp_path, {"id": ["b", "a"]}, labels=["Edema"], **keys), Edema=[0, 1])
    pd.DataFrame({"id": [1, 2], "Edema": [1, 0]}).to_parquet(tmp_path / "x.parquet")
    keys = {"label_csv": "x.parquet", "label_key": "id"}
    assert_labels(load(tmp_path, {"id": ["2", "1"]}, labels=["Edema"], **keys), Edema=[0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,Edema\na,1\na,1\n",
            r"labels.csv: column 'id' holds 'a' in row 3 .*keep one row per key",
        ),
        ("id,Edema\n7,1\n7.0,0\n", r"in row 3 .*keep one row per key"),
        ("id,Edema\nnan,1\na,0\n", r"column 'id' holds 'nan' in row 2 .*every row needs a key"),
        ("id,Edema\n8.4E+35,1\na,0\n", r"holds '8.4E\+35' in row 2 .*digits"),
        ("id,Edema\nx,1\ny,0\n", r"no row of .*labels.csv belongs to a row of .*studies.csv: "),
        (
            "key,Edema\na,1\n",
            r"data.label_key needs the column 'id'; .*labels.csv has .*key, Edema",
        ),
        ("id,Edma\na,1\n", r"data.labels must be one of Edma; got 'Edema'"),
        ("id,Edema\n", r"labels.csv has no rows below its header; check data.label_csv"),
        ("id,Edema\na,2\n", r"labels.csv: column 'Edema' holds '2' in row 2"),
    ],
)
def test_a_second_file_that_cannot_be_joined_is_refused(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    keys = {"label_csv": "labels.csv", "label_key": "id", "labels": ["Edema"]}
    with pytest.raises(InputError, match=message):
        load(tmp_path, {"id": ["a", "b"]}, **keys)


# ------------------------------------------------------------------------------ files, the pages
@pytest.mark.parametrize(
    ("files", "csv", "near"),
    [
        (["studies.csv"], "study.csv", r"\(did you mean 'studies.csv'\?\)"),
        (["Labels.CSV"], "labels.csv", r"\(did you mean 'Labels.CSV'\?\)"),
        (["tables/studies.csv"], "studies.csv", r"\(did you mean 'tables/studies.csv'\?\)"),
        (["tables/studies.csv"], "tabels/studies.csv", r"\(did you mean 'tables/studies.csv'\?\)"),
        (["labels.csv.gz"], "labels.csv", r"\(did you mean 'labels.csv.gz'\?\)"),
        (["a.csv", "b.parquet", "Doe_John.png"], "zzz", r"\(there are a.csv, b.parquet\)"),
        (["Doe_John.png"], "Doe_John.csv", r"Doe_John.csv$"),
    ],
)
def test_a_table_that_is_not_there_names_the_nearest(tmp_path, files, csv, near, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    touch(*(tmp_path / "root" / file for file in files))
    with pytest.raises(InputError, match=rf"data.csv: there is no file .*{re.escape(csv)}.*{near}"):
        sources.load("table", tmp_path / "root", ["x"], csv=csv, path_column="file")


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("nih14", "Data_Entry_2017_v2020 (1).csv"),
        ("chexpert", "train_.csv"),
        ("siim_pneumothorax", "train-rle_1.csv"),
    ],
)
def test_an_official_table_under_another_name_is_named(tmp_path, source, file):
    touch(tmp_path / file)
    with pytest.raises(
        InputError, match=rf"holds no .* \(did you mean {re.escape(repr(file))}\?\)"
    ):
        sources.load(source, tmp_path)


def test_a_folder_that_is_not_there_names_the_nearest(tmp_path):
    touch(tmp_path / "nih-chest/x.csv", tmp_path / "padchest/x.csv", tmp_path / "nih_chest.zip")
    near = r"no directory .*/nih_chest \(did you mean 'nih-chest'\?\)$"
    for source in ("nih14", "folder", "table"):
        keys = {"csv": "x.csv", "path_column": "path"} if source == "table" else {}
        with pytest.raises(InputError, match=near):
            sources.load(source, tmp_path / "nih_chest", ["x"], **keys)


PAGE = (Path(__file__).parents[2] / "data/README.md").read_text()
EXAMPLES = re.findall(
    r"\*\*([^*]+):\*\*[^`]*?`data[^`]*`.*?((?:```\n.*?```\n)+)```bash\n(.*?)```",
    PAGE.partition("### Labels in other forms\n")[2].partition("\n## ")[0],
    re.DOTALL,
)
MEANT = {
    "Words": {"Effusion": [1, 0]},
    "One column of findings": {"Edema": [1, 0]},
    "Several findings in a cell": {"Edema": [1, 0], "Mass": [1, 0]},
    "Labels in a second file": {"Edema": [1, 1]},
}


def test_the_page_shows_each_form():
    assert [name for name, _, _ in EXAMPLES] == list(MEANT)


@pytest.mark.parametrize(("name", "tables", "command"), EXAMPLES, ids=list(MEANT))
def test_the_examples_of_the_page_are_read_as_it_says(tmp_path, name, tables, command):
    touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
    texts = re.findall(r"```\n(.*?)```", tables, re.DOTALL)
    for file, text in zip(("studies.csv", "labels.csv"), texts, strict=False):
        (tmp_path / file).write_text(text)
    words = shlex.split(command.replace("\\\n", " ").replace("DIR", str(tmp_path)))
    cfg = config(*(word for word in words if "=" in word))
    assert_labels(sources.load_section(OmegaConf.to_container(cfg.data)), **MEANT[name])
