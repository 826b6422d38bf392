from collections import Counter

import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from tests.support.collections import touch
from tests.support.real_rows import real_rows, write_rows

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def load_table(*args, **keys):
    return sources.load("nih14", *args, **keys).table


def write_nih(root, rows, header=NIH_HEADER, name="Data_Entry_2017_v2020.csv"):
    root.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{file},{found},0,{who},50,M,{view},3056,2544,0.1,0.1" for file, found, who, view in rows
    ]
    (root / name).write_bytes("\n".join([header, *lines, ""]).encode())


@pytest.fixture
def nih(tmp_path):
    root = tmp_path / "nih"
    rows = [
        ("00000001_000.png", "Cardiomegaly|Pleural_Thickening", 1, "PA"),
        ("00000001_001.png", "No Finding", 1, "AP"),
        ("00000002_000.png", "Mass", 2, "PA"),
    ]
    write_nih(root, rows)
    touch(
        root / "images_001/images/00000001_000.png",
        root / "images_001/images/00000001_001.png",
        root / "images_012/images/00000002_000.png",
    )
    return root


def test_reads_findings_views_and_patients(nih):
    table = load_table(nih)
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


def test_selects_labels_and_views(nih):
    table = load_table(nih, ["No Finding", "Mass"], views=["PA"])
    assert table[["No Finding", "Mass"]].to_numpy().tolist() == [[0, 0], [0, 1]]
    assert table["view"].tolist() == ["PA", "PA"]


def test_keeps_the_official_test_list(nih):
    (nih / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (nih / "test_list.txt").write_bytes(b"00000002_000.png\r\n")
    assert load_table(nih)["split"].tolist() == [None, None, "test"]


def test_a_list_is_read_in_the_encodings_of_the_csv(nih):
    (nih / "test_list.txt").write_text("00000002_000.png\r\n", encoding="utf-16")
    assert load_table(nih)["split"].tolist() == [None, None, "test"]
    (nih / "test_list.txt").write_bytes(b"\xe4.png\n")
    with pytest.raises(InputError, match=r"cannot read .*test_list.txt: it is not UTF-8; save it"):
        load_table(nih)


def test_lists_may_name_more_images_than_a_part_of_the_set_has(nih):
    (nih / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n9_000.png\n")
    (nih / "test_list.txt").write_text("00000002_000.png\n9_001.png\n")
    assert load_table(nih)["split"].tolist() == [None, None, "test"]


def test_needs_every_image_in_one_of_two_lists(nih):
    (nih / "test_list.txt").write_text("00000002_000.png\n")
    assert load_table(nih)["split"].tolist() == [None, None, "test"]  # the one list alone
    (nih / "train_val_list.txt").write_text("")
    message = r"2 of 3 images are in neither of test_list.txt and train_val_list.txt: "
    with pytest.raises(InputError, match=message + "00000001_000.png, 00000001_001.png; .*remove"):
        load_table(nih)
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png"]
    (nih / "train_val_list.txt").write_text("\n".join(names))
    with pytest.raises(InputError, match=r"1 of 3 images are in both .*: 00000002_000.png; "):
        load_table(nih)
    (nih / "test_list.txt").unlink()
    assert load_table(nih)["split"].tolist() == [None] * 3


def test_reads_the_older_csv_whose_lines_end_in_a_comma(tmp_path):
    rows = [("00000001_000.png", "Mass", 1, "PA,3056,2544,0.1,0.1,")]
    write_nih(tmp_path, [], NIH_HEADER + ",", "Data_Entry_2017.csv")
    with (tmp_path / "Data_Entry_2017.csv").open("a") as csv:
        csv.writelines(f"{f},{found},0,{who},50,M,{rest}\n" for f, found, who, rest in rows)
    touch(tmp_path / "images/00000001_000.png")
    assert load_table(tmp_path, ["Mass"])["Mass"].tolist() == [1]


def test_refuses(nih, tmp_path_factory):
    with pytest.raises(InputError, match="did you mean 'Pneumonia'"):
        load_table(nih, ["pneumnia"])
    (nih / "images_012/images/00000002_000.png").unlink()
    with pytest.raises(InputError, match=r"images not on disk \(1 of 3\): .*00000002_000.png"):
        load_table(nih)
    assert len(load_table(nih, views=["AP"])) == 1  # rows that are not used may be missing
    with pytest.raises(InputError, match=r"holds no Data_Entry_2017_v2020.csv or Data_Entry"):
        load_table(tmp_path_factory.mktemp("empty"))


def test_real_rows_agree_with_a_count_by_hand(tmp_path):
    rows = real_rows("Data_Entry_2017_v2020.csv", 400)
    write_rows(tmp_path / "Data_Entry_2017_v2020.csv", rows)
    touch(*(tmp_path / "images" / row["Image Index"] for row in rows))
    table = load_table(tmp_path)
    named = Counter(finding for row in rows for finding in row["Finding Labels"].split("|"))
    healthy = load_table(tmp_path, [*label_columns(table), "No Finding"])
    assert named.pop("No Finding") == healthy["No Finding"].sum() > 50
    sums = table[label_columns(table)].sum()
    assert sums[sums > 0].to_dict() == named
    assert (healthy["No Finding"] == (table[label_columns(table)].sum(axis=1) == 0)).all()
    assert table["patient"].tolist() == [row["Patient ID"] for row in rows]
    assert table["view"].tolist() == [row["View Position"] for row in rows]


def test_a_root_too_high_or_too_low_is_told(nih):
    for wrong in (nih.parent, nih / "images_001", nih / "images_001/images"):
        with pytest.raises(InputError, match=rf"holds no Data_.* there is .*; set data.root={nih}"):
            load_table(wrong)


def test_a_column_that_is_missing(nih):
    csv = nih / "Data_Entry_2017_v2020.csv"
    csv.write_text(csv.read_text().replace("Finding Labels", "Findings"))
    with pytest.raises(InputError, match=r"'Finding Labels'; .*did you mean 'Findings'"):
        load_table(nih)


@pytest.mark.parametrize("cell", ["Pnuemonia", "mass", "Mass| Nodule", "", "Mass|No finding"])
def test_a_word_that_is_no_finding_is_refused(nih, cell):
    """It would count as absent."""
    csv = nih / "Data_Entry_2017_v2020.csv"
    csv.write_text(csv.read_text().replace(",Mass,", f",{cell},"))
    with pytest.raises(
        InputError, match=r"column 'Finding Labels' holds .* in row 4 \(invalid rows: 1"
    ):
        load_table(nih, ["Cardiomegaly"])


def test_a_test_list_of_other_images_is_refused(nih):
    (nih / "test_list.txt").write_text("images/00000002_000.png\n")
    with pytest.raises(InputError, match=r"test_list.txt lists no image of the CSV, such as 0000"):
        load_table(nih)
