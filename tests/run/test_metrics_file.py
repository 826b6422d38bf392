"""Damage of metrics.csv: the whole rows stay, and the others are named."""

import re

import pytest

from fluoroscope.run.csv_logger import MetricsCsv
from fluoroscope.run.metrics_file import count_rows, lost_rows, rewind_metrics
from fluoroscope.train import train
from tests.run.test_resume import Stop, train_with
from tests.support.films import tiny_config
from tests.support.metrics import metric_rows

HEADER = 'step,time_s,"val/auroc/a,b",loss\n'
ROWS = [f"{step},1700000000.5,,{step / 7}\n" for step in range(4, 100, 5)]  # 4, 9, ..., 99
STEP = 90  # 18 rows are before it


def written(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def middle(replaced):
    """Rows 6 to 8, of steps 34, 39 and 44, in another form."""
    return HEADER + "".join(ROWS[:6]) + replaced + "".join(ROWS[9:])


DAMAGES = {
    "cut": (HEADER + "".join(ROWS[:10])[:-4], "9 of 18 rows .* (steps 45 to 89)"),
    "cut at a line": (HEADER + "".join(ROWS[:10]), "8 of 18 rows .* (steps 50 to 89)"),
    "zeroed": (middle("\0" * 60 + "\n"), "3 of 18 rows .* (steps 30 to 48)"),
    "zeroed across lines": (middle("34,17\0\0\0\n\0\0\n\0\n"), "3 of 18 rows .* (steps 30 to 48)"),
    "too long": (middle("34,1,2,3,4\n" + "".join(ROWS[7:9])), "1 of 18 rows .* (steps 30 to 38)"),
    "no numbers": (middle("34,1,x,3\n39,1,2\n" + ROWS[8]), "2 of 18 rows .* (steps 30 to 43)"),
    "no text": (middle("@\n").encode().replace(b"@", b"34,1,2,\xff\xfe"), "3 of 18 rows"),
    "left out": (middle(""), "3 of 18 rows .* (steps 30 to 48)"),
    "emptied": ("", "18 of 18 rows .* (steps 0 to 89)"),
    "header zeroed": (b"\0" * 20 + b"\n" + "".join(ROWS).encode(), "18 of 18 rows"),
    "header no text": (b"step,\xff\n" + "".join(ROWS).encode(), "18 of 18 rows"),
    "header gone": ("".join(ROWS), "18 of 18 rows"),
    "an open quotation": ('"' + HEADER + "".join(ROWS), "18 of 18 rows"),
    "another file": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4000, "18 of 18 rows"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_gone_is_named_and_the_rest_stays(tmp_path, damage):
    content, sentence = DAMAGES[damage]
    path = written(tmp_path, content)
    told = lost_rows(path, STEP, 18)
    assert re.search(sentence.replace("(", r"\(").replace(")", r"\)"), told)
    assert "\n" not in told
    rewind_metrics(path, STEP)
    MetricsCsv(tmp_path).log_metrics({"loss": 3.0, "new": 2.0}, STEP)
    rows = metric_rows(tmp_path)
    assert rows[-1]["loss"] == "3.0"
    kept = 18 - int(told.split(" of ")[0].rpartition(" ")[2])
    assert len(rows) - 1 == kept == len([row for row in rows if int(row["step"]) < STEP])
    assert {row["loss"] for row in rows[:-1]} <= {str(step / 7) for step in range(100)}


def test_a_missing_file_is_named_once_rows_were_logged(tmp_path):
    path = tmp_path / "metrics.csv"
    assert "18 of 18 rows before step 90 are gone (steps 0 to 89)" in lost_rows(path, STEP, 18)
    assert lost_rows(path, 0, 0) is None
    rewind_metrics(path, STEP)
    assert not path.exists()


@pytest.mark.parametrize("tail", ["", "12", "99,17", "90,1,,2\n95,1,,3\n"])
def test_rows_that_the_resume_logs_again_are_no_loss(tmp_path, tail):
    """Also one that was cut while it was written."""
    path = written(tmp_path, HEADER + "".join(ROWS[:18]) + tail)
    assert lost_rows(path, STEP, 18) is None
    rewind_metrics(path, STEP)
    assert path.read_text() == HEADER + "".join(ROWS[:18])
    assert count_rows(path) == 18


def test_older_runs_did_not_count_their_rows(tmp_path):
    assert lost_rows(written(tmp_path, HEADER + "".join(ROWS)), STEP, None) is None
    assert "3 rows before" in lost_rows(written(tmp_path, middle("\0\n" * 3)), STEP, None)
    assert "are gone (steps 0 to 89)" in lost_rows(written(tmp_path, ""), STEP, None)


def test_a_header_of_several_lines_is_no_row(tmp_path):
    path = written(tmp_path, 'step,"a\nb"\n0,1\n1,2\n')
    assert count_rows(path) == 2
    assert lost_rows(path, 2, 2) is None


def test_a_run_counts_its_rows_and_resumes_with_those_that_are_left(films, tmp_path, monkeypatch):
    cfg = tiny_config(films, "trainer.log_every_n_steps=1", "run.save_every_n_steps=2")
    folder = tmp_path / "run"
    train_with(monkeypatch, cfg, folder, Stop(1, 5))
    lines = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join([*lines[:4], "x\n", *lines[6:]]))
    cfg.run.resume = str(folder)
    with pytest.warns(UserWarning, match=r"metrics.csv is damaged: 2 of \d+ rows before step 14"):
        train(cfg, folder, [])
    assert {int(row["step"]) for row in metric_rows(folder)} >= set(range(5, 20))
