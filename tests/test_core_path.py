"""The path from the command to a logged number stays short enough to be read."""

import sys
from pathlib import Path

import pytest

from fluoroscope.train import train
from tests.support.films import tiny_config

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/fluoroscope"
BY_HAND = [
    "command/entry.py",
    "train.py",
    "build.py",
    "config/train.py",
    "model/classifier.py",
    "model/head.py",
    "diagnostics/monitor.py",
    "diagnostics/head_metrics.py",
    "diagnostics/census.py",
    "run/csv_logger.py",
]
# Aimed at: 50 and 8,000. Every file below data.root is accounted for, which takes some files more.
FILES_TRACED, LINES_TRACED = 66, 10_000


def lines(paths):
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_a_reader_goes_from_the_command_to_a_logged_number_through_2000_lines():
    path = [ROOT / "scripts/train.py", *(SOURCE / name for name in BY_HAND)]
    assert len(path) <= 11
    assert lines(path) <= 2000


class LoggedError(Exception):
    """The number has been written: the run may stop."""


def test_a_run_executes_few_files_until_it_logs_the_dead_share(films, tmp_path, monkeypatch):
    """Files in which a function runs, until `units/val/dead_frac` is a column of metrics.csv."""
    cfg = tiny_config(films, "trainer.max_epochs=1")
    metrics, executed = tmp_path / "run/metrics.csv", set()

    def is_logged():
        return metrics.exists() and "units/val/dead_frac" in metrics.read_text().partition("\n")[0]

    def trace(frame, event, argument):
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if event == "call" and file.startswith(str(SOURCE)) and function != "<module>":
            executed.add(file)
        elif event == "return" and file.endswith("csv_logger.py") and is_logged():
            sys.setprofile(None)
            raise LoggedError

    sys.setprofile(trace)
    try:
        with pytest.raises(LoggedError):
            train(cfg, tmp_path / "run", [])
    finally:
        sys.setprofile(None)
    files = sorted(map(Path, executed))
    assert len(files) <= FILES_TRACED
    assert lines(files) <= LINES_TRACED
