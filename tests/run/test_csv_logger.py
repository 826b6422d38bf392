import csv
import math
import time

import pytest
import torch

from fluoroscope.run.csv_logger import MetricsCsv
from fluoroscope.run.metrics_file import rewind_metrics
from tests.support.metrics import metric_rows


def test_a_new_key_widens_the_file_and_keeps_its_rows(tmp_path):
    log = MetricsCsv(tmp_path)
    log.log_metrics({"a": 1}, 0)
    log.log_metrics({"b": torch.tensor(0.1), "a": 2.5}, 1)
    log.log_metrics({"c": 1e-300}, 2)
    log.log_metrics({"a": 4}, 3)
    assert metric_rows(tmp_path) == [
        {"step": "0", "a": "1.0", "b": "", "c": ""},
        {"step": "1", "a": "2.5", "b": str(float(torch.tensor(0.1))), "c": ""},
        {"step": "2", "a": "", "b": "", "c": "1e-300"},
        {"step": "3", "a": "4.0", "b": "", "c": ""},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path):
    MetricsCsv(tmp_path).log_metrics({"a": 1, "b": 2}, 0)
    again = MetricsCsv(tmp_path)
    again.log_metrics({"b": 3, "a": 4}, 1)
    again.log_metrics({"c": 5}, 2)
    assert [tuple(row.values()) for row in metric_rows(tmp_path)] == [
        ("0", "1.0", "2.0", ""),
        ("1", "4.0", "3.0", ""),
        ("2", "", "", "5.0"),
    ]


def test_what_is_not_a_number_is_written_and_read_as_such(tmp_path):
    MetricsCsv(tmp_path).log_metrics({"a": math.nan, "b": torch.tensor(math.inf)}, 0)
    (row,) = metric_rows(tmp_path)
    assert math.isnan(float(row["a"]))
    assert float(row["b"]) == math.inf


def test_every_number_survives_the_file(tmp_path):
    numbers = [0.1, 1 / 3, 5e-324, 123456789.123456789, -1e22]
    MetricsCsv(tmp_path).log_metrics({f"k{i}": n for i, n in enumerate(numbers)}, 0)
    (row,) = metric_rows(tmp_path)
    assert [float(row[f"k{i}"]) for i in range(len(numbers))] == numbers


def times(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [row["time_s"] for row in csv.DictReader(file)]


def test_each_row_has_the_time_at_which_it_was_logged(tmp_path):
    log, started = MetricsCsv(tmp_path), time.time()
    log.log_metrics({"a": 1}, 0)
    log.log_metrics({"b": 2}, 1)
    first, second = map(float, times(tmp_path))
    assert started - 0.001 <= first <= second <= time.time() + 0.001


def test_a_file_without_times_gets_them_from_its_resume_on(tmp_path):
    """As an earlier version wrote it."""
    (tmp_path / "metrics.csv").write_text("step,a\n0,1.0\n1,2.0\n2,3.0\n")
    rewind_metrics(tmp_path / "metrics.csv", 2)
    MetricsCsv(tmp_path).log_metrics({"a": 4}, 2)
    assert [row["a"] for row in metric_rows(tmp_path)] == ["1.0", "2.0", "4.0"]
    *before, after = times(tmp_path)
    assert before == ["", ""]
    assert float(after) == pytest.approx(time.time(), abs=60)
