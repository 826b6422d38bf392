"""Tables on a narrow terminal: every label and every number is whole, whatever their length."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fluoroscope import console
from fluoroscope.console import fitting_tables
from fluoroscope.data.study_table import Studies, study_table
from fluoroscope.report import Job
from fluoroscope.report import main as report
from fluoroscope.run import closing, summary
from fluoroscope.run.score_limits import score_limits
from fluoroscope.sources.nih14 import FINDINGS as NIH
from tests.reporting.folders import write_grid

LONG = [f"{word} of the {'costophrenic ' * 3}{n:03d}"[:60] for n, word in enumerate(NIH)]
ODD = ["[red]Mass[/red]", "[/]", "a" * 60, "Ünïcödé 肺炎", "B C"]
NAMES = {"nih": list(NIH), "long": LONG, "odd": ODD, "one": ["Mass"]}


def shown(text, width=80):
    """The lines, none of which is too long or cut."""
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "…" not in text
    return lines


def holds(text, name):
    """Whether a name is there, perhaps on several lines."""
    first = "".join(re.split(r"\s{2,}", line)[0] for line in text.splitlines())
    return re.sub(r"\s", "", name) in re.sub(r"\s", "", first)


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("columns", [1, 3, 9, 30])
def test_a_table_of_any_size_fits(width, names, columns):
    rng = np.random.default_rng(columns)
    titles = ["label", *(f"column {i}" for i in range(columns))]
    rows = [
        [name, *(f"{v:+.3f} to {v + 1:+.3f}" for v in rng.normal(size=columns))]
        for name in NAMES[names]
    ]
    stream = io.StringIO()
    printed = Console(file=stream, width=width)
    for table in fitting_tables(titles, rows, width):
        printed.print(table)
    text = stream.getvalue()
    shown(text, width)
    assert all(cell in text for row in rows for cell in row[1:])
    assert sum(line.count(" to ") for line in text.splitlines()) == len(rows) * columns
    if names != "odd":
        assert all(holds(text, name) for name in NAMES[names])


def studies(labels, count=90):
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.integers(0, 2, (count, len(labels))).astype(float), columns=labels)
    splits = np.resize(["train", "val", "test"], count)
    table = study_table([f"/x/{n}.png" for n in range(count)], table, splits=list(splits))
    return Studies(table, list(labels), "f00d", 0, pd.DataFrame(), (), "none", "table")


@pytest.mark.parametrize("names", NAMES)
def test_the_study_table_has_one_row_per_label(names, monkeypatch, capsys):
    monkeypatch.setattr(console, "WIDTH", 80)
    read = studies(NAMES[names])
    summary.print_studies(read)
    text = capsys.readouterr().out
    shown(text)
    rows = {row["split"]: row for row in summary.split_counts(read)}
    assert text.split()[:3] == ["train", "val", "test"]
    for label in NAMES[names]:
        numbers = r" +".join(str(rows[split][label]) for split in ("train", "val", "test"))
        assert re.search(rf" {numbers}$", text, re.M), label
        assert holds(text, label)


def scored(labels):
    """A result with another score of each label; the last label has none."""
    rng = np.random.default_rng(2)
    test = {"auroc_low": 0.6, "auroc_high": 0.7, "images": 90, "patients": 80}
    for name in ("auroc", "auprc", "sensitivity", "specificity", "threshold", "brier"):
        values = rng.uniform(0, 1, len(labels))
        values[-1] = values[-1] if len(labels) == 1 else np.nan
        test |= {f"{name}/{label}": v for label, v in zip(labels, values, strict=True)}
        test[name] = float(np.nanmean(values))
    return {"labels": list(labels), "source": "table", "test": test, "checkpoint": "c" * 120}


@pytest.mark.parametrize("names", NAMES)
def test_an_evaluation_has_one_row_of_scores_per_label(names, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(console, "WIDTH", 80)
    labels = NAMES[names]
    result = scored(labels)
    rows = pd.DataFrame({label: [0.0, 0.0, 1.0] for label in labels})
    limits = score_limits(rows.assign(group=range(3)), labels, "all")
    closing.print_evaluation(result, tmp_path, limits)
    text = capsys.readouterr().out
    shown(text)
    several = len(labels) > 1
    assert (f"mean of {len(labels) - 1} of {len(labels)} labels" in text) == several
    for label in labels:
        cells = [result["test"][f"{name}/{label}"] for name in closing.OF_A_LABEL]
        *first, threshold = ["n/a" if np.isnan(v) else f"{v:.3f}" for v in cells]
        row = rf" {' +'.join(first)}( +{threshold})? *$"  # long names leave it to the next table
        assert bool(re.search(row, text, re.M)) == several, label
        assert (threshold in text) >= several
    assert " ".join(text.split()).count("1 positive image of 1 patient") == len(labels)


def test_a_report_prints_every_number_of_long_names(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(console, "WIDTH", 80)
    own = {"head__activation_args": {"negative_slope_of_the_left_side": 0.123456789}}
    write_grid(tmp_path / "runs", {"relu": {}, "leaky_relu": own, "identity": {}}, [1, 2])
    report(Job([tmp_path / "runs"], None, None, tmp_path / "out", "relu", incomplete=True))
    text = capsys.readouterr().out
    frame = pd.read_csv(tmp_path / "out/table.csv")
    assert "…" not in text
    for _, row in frame.iterrows():
        assert f"{row['auroc']:.3f}" in text
        assert f"{row['dead']:.1%}" in text
    assert "leaky_relu(negative_slope_of_the_left_side=0.123456789)" in re.sub(r"\s", "", text)
