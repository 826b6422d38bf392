import csv

import pyarrow.parquet
import pytest

from fluoroscope.prediction.journal import Journal

COLUMNS = {"image": "string", "A_probability": "double", "A_decision": "int8", "error": "string"}
ROWS = [
    ["a.png", "0.25", "1", ""],
    ["b, c.png", "", "", "the file is empty"],
    ['q"uote\nline.png', "0.5", "", ""],
    ["ü.png", "1", "0", "a\n# b"],
    ["# e.png", "1e-05", "0", ""],
]


def completed(out, rows=ROWS, job="job", batch=1):
    journal = Journal(out, job, COLUMNS, batch)
    kept = journal.done
    journal.write(rows[kept:])
    journal.finish()
    return kept


def read(out):
    with out.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_table_holds_every_row_as_it_was_given(tmp_path):
    completed(tmp_path / "p.csv")
    assert read(tmp_path / "p.csv") == [list(COLUMNS), *ROWS]
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize("batch", [1, 2])
def test_wherever_it_is_cut_off_it_continues_to_the_same_table(tmp_path, batch):
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    completed(whole)
    journal = Journal(tmp_path / "all.csv", "job", COLUMNS, 1)
    journal.write(ROWS)
    journal.close()
    content = journal.path.read_bytes()
    seen = set()
    for end in range(len(content) + 1):
        (tmp_path / ".cut.csv.rows").write_bytes(content[:end])
        seen.add(completed(cut, batch=batch))
        assert cut.read_bytes() == whole.read_bytes(), end
        cut.unlink()
    assert seen == set(range(0, len(ROWS) + 1, batch))


def test_rows_of_another_job_or_of_other_columns_are_dropped(tmp_path):
    for start in (b"# other\n", b"# job\nimage,else\n", b"\xff\xfe\0", b""):
        (tmp_path / ".p.csv.rows").write_bytes(start + b"a,b,c,d\n")
        assert completed(tmp_path / "p.csv") == 0
        assert read(tmp_path / "p.csv") == [list(COLUMNS), *ROWS]
        (tmp_path / "p.csv").unlink()


def test_parquet_has_types_and_the_same_values(tmp_path):
    completed(tmp_path / "p.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    assert [str(field.type) for field in table.schema] == list(COLUMNS.values())
    assert table["image"].to_pylist() == [row[0] for row in ROWS]
    assert table["A_probability"].to_pylist() == [float(row[1]) if row[1] else None for row in ROWS]
    assert table["A_decision"].to_pylist() == [int(row[2]) if row[2] else None for row in ROWS]
    assert table["error"].to_pylist() == [row[3] for row in ROWS]


def test_an_image_may_be_called_like_a_missing_value(tmp_path):
    rows = [["NULL", "", "", ""], ["NA", "", "", "nan"]]
    completed(tmp_path / "p.parquet", rows)
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    assert table["image"].to_pylist() == ["NULL", "NA"]
    assert table["error"].to_pylist() == ["", "nan"]


def test_no_rows_make_a_table_with_a_header(tmp_path):
    completed(tmp_path / "p.csv", [])
    assert read(tmp_path / "p.csv") == [list(COLUMNS)]


def test_all_rows_are_read_again(tmp_path):
    journal = Journal(tmp_path / "p.csv", "job", COLUMNS, 3)
    journal.write(ROWS[:2])
    journal.write(ROWS[2:])
    assert list(journal.records()) == ROWS
    journal.close()
