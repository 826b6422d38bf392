"""Hostile names at every writer: pages, tables, figures, the terminal; never a crash."""

import csv
import json
import re
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from markupsafe import Markup

from fluoroscope import console as terminal
from fluoroscope.audit.audit_table import audit_table
from fluoroscope.console import CleanConsole, CleanStream, console_text
from fluoroscope.escaping import (
    csv_cell,
    csv_table,
    figure_text,
    markdown_cell,
    markdown_text,
    one_line,
    shortened,
)
from fluoroscope.model.scores import Predictions
from fluoroscope.reporting import census_plot
from fluoroscope.reporting.collect import _predictions, collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.page import write
from fluoroscope.reporting.rendering import render
from fluoroscope.reporting.verdict import verdict
from fluoroscope.run import run_folder
from tests.support.studies import write_study

NAMES = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1",
    'a|b"c,d;e',
    "[x](javascript:alert(1))",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a$\\frac{$b",
    "$",
    "{{ 7*7 }}{% raw %}",
    "{0}{name}%s",
    "\x1b[2J\x1b]0;x\x07",
    "[red]x[/red]",
    "one\ntwo",
    "a\u202eb",
    "nul\0",
    "\ud800",
    "n" * 5000,
    "_hidden",
    "# h",
    "../../../etc/x",
    "::x",
    "&lt;b&gt;",
    "http://evil.example",
]
YAML_NAMES = [name for name in NAMES if name != "\ud800"]  # no YAML file can hold it
LONG = {name: f"{name[:9]!a:.12}" for name in NAMES}
each_name = pytest.mark.parametrize("name", NAMES, ids=LONG.get)


# One function per output -------------------------------------------------------------------------


@each_name
def test_a_terminal_gets_no_control_character(name):
    text = console_text(name)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    text.encode()


@each_name
def test_a_line_stays_one(name):
    assert len(f"{one_line(name)}x".splitlines()) == 1


@each_name
def test_no_cell_of_a_spreadsheet_is_a_formula(name):
    cell = csv_cell(name)
    assert cell[:1] not in "=+-@\t\r\uff1d"
    assert not cell.lstrip().startswith("=")


@pytest.mark.parametrize("number", ["-0.5", "+1", "-1e-3", "0", "nan", -0.5, 3, None, True])
def test_numbers_stay_numbers(number):
    assert csv_cell(number) == number


def test_names_of_columns_and_texts_are_escaped_and_numbers_are_not():
    table = pd.DataFrame({"=a": [-1.5, 2], "b": ["-2+3", "-2"], "c": [True, False]})
    assert csv_table(table).to_csv(index=False) == "'=a,b,c\n-1.5,'-2+3,True\n2.0,-2,False\n"


@each_name
def test_markdown_shows_text_and_nothing_else(name):
    text, cell = markdown_text(name), markdown_cell(name)
    for shown in (text, cell):
        assert not re.search(r"(?<!\\)(\]\(|<[a-z/]|\$|`|://)", shown)
    assert not re.search(r"(?<!\\)\|", cell)
    assert not re.match(r"[#>\[]|[-+*] ", text)


@pytest.mark.parametrize("text", ["leaky_relu(negative_slope=0.1)", "p < 0.05", "+0.012*", "0.5 %"])
def test_plain_text_stays_as_it_is(text):
    assert markdown_text(text) == markdown_cell(text) == text


def test_shortened_names_stay_different():
    one, other = "n" * 5000, "n" * 4999 + "m"
    assert len({shortened(name, 22) for name in (one, other)}) == 2
    assert {len(figure_text(name, 22)) for name in (one, other)} == {22}
    assert shortened("short", 22) == "short"


# Writers -----------------------------------------------------------------------------------------


@each_name
def test_what_is_printed_is_clean(name):
    raw = StringIO()
    print(name, file=CleanStream(raw))
    assert raw.getvalue() == f"{console_text(name)}\n"


@pytest.mark.parametrize("tty", [False, True])
def test_a_console_takes_names_for_text(tty):
    from rich.table import Table

    table = Table()
    table.add_column("[bold]x[/bold]")
    for name in NAMES:
        table.add_row(name)
    raw = StringIO()
    console = CleanConsole(file=raw, width=200, force_terminal=tty, color_system=None)
    console.print(table)
    console.print("[red]x[/red] :smile:")
    assert "[red]x[/red] :smile:" in raw.getvalue()
    assert "[bold]x[/bold]" in raw.getvalue()
    assert "\x1b[2J" not in raw.getvalue()
    assert "\x1b]0" not in raw.getvalue()
    assert "\0" not in raw.getvalue()


def test_an_encoding_without_the_characters_is_no_crash(tmp_path):
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        print("Müller \ud800", file=CleanStream(file))
    assert (tmp_path / "log").read_text() == "M\\xfcller \\ufffd\n"


def test_own_streams_come_back(monkeypatch, capsys):
    import sys

    before = sys.stdout
    with terminal.clean_output():
        print("a\x1b[2J")
        assert terminal.own_stream(sys.stdout) is before
    assert sys.stdout is before
    assert capsys.readouterr().out == "a\ufffd[2J\n"


def hostile_runs(root, first=0):
    """Runs whose activations, labels and names are hostile."""
    write_study(root, ("relu", "gelu", "identity"), seeds=2)
    label = "=L|$<b>"
    for n, file in enumerate(sorted(root.glob("*/config.yaml"))):
        folder = file.parent
        cfg, result = json.loads(file.read_text()), json.loads((folder / "result.json").read_text())
        if cfg["head"]["activation"] != "relu":
            cfg["head"]["activation"] = YAML_NAMES[(first + n // 2) % len(YAML_NAMES)]
        result |= {"labels": [label], "name": NAMES[n], "activation": cfg["head"]["activation"]}
        for row in result["splits"]:
            row[label] = row.pop("Pneumonia")
        file.write_text(json.dumps(cfg))
        (folder / "result.json").write_text(json.dumps(result))
        for csv_file in folder.glob("predictions/*.csv"):
            table = pd.read_csv(csv_file)
            names = {"Pneumonia": label, "Pneumonia_probability": f"{label}_probability"}
            run_folder.write_predictions(csv_file, table.rename(columns=names))
    return root


@pytest.mark.whole
def test_a_report_of_every_hostile_name(tmp_path):
    for first in range(0, len(NAMES), 2):
        root = hostile_runs(tmp_path / str(first), first)
        check_report(root, tmp_path / f"report-{first}")


def test_a_report_of_hostile_names(tmp_path):
    root = hostile_runs(tmp_path / "runs")
    check_report(root, tmp_path / "report")


def check_report(root, out):
    compared = compare(collect([root]), incomplete=True)
    write(compared, verdict(compared), out, lambda name: None)
    html = (out / "report.html").read_text()
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    markdown = (out / "report.md").read_text()
    assert not re.search(r"(?<!\\)(\]\(javascript|<script|<img)", markdown)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", html + markdown)
    with (out / "table.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [c for c in cells if c[:1] in ("=", "@", "\t", "\r")]
    for picture in out.glob("figures/*.svg"):
        assert len(picture.name) < 120
    assert max(map(len, markdown.splitlines())) < 60_000


@pytest.mark.parametrize("name", YAML_NAMES, ids=LONG.get)
def test_predictions_are_read_back_under_their_own_names(name, tmp_path):
    label = name
    table = pd.DataFrame({"path": "x", "patient": ["a", "b"], "split": "test", label: [0.0, 1.0]})
    logits = torch.tensor([[-1.0], [1.0]])
    found = Predictions(torch.arange(2), logits, torch.tensor([[0.0], [1.0]]))
    written = run_folder.prediction_table(table, [label], found, name_images=True)
    run_folder.write_predictions(tmp_path / "test.csv", written)
    read = _predictions(tmp_path / "test.csv", [label])
    assert read[f"{label}_probability"].tolist() == pytest.approx([0.2689414, 0.7310586])


def test_an_audit_of_hostile_labels_and_paths(tmp_path):
    labels = YAML_NAMES
    count = 40
    rng = np.random.default_rng(0)
    columns = {label: rng.integers(0, 2, count).astype(float) for label in labels}
    table = pd.DataFrame(
        {
            "path": [f"/x/{NAMES[n % 20]}.png" for n in range(count)],
            "patient": [NAMES[n % 21] + str(n) for n in range(count)],
            "split": ["train", "test"] * (count // 2),
            "view": "=V",
            **columns,
        }
    )
    survey = pd.DataFrame({"width": 9, "height": 9, "reason": ["=x"] * count})
    rows = audit_table(SimpleNamespace(table=table, labels=labels), survey, name_images=True)
    csv_table(rows).to_csv(tmp_path / "audit.csv", index=False)
    with (tmp_path / "audit.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [c for c in cells if c[:1] in ("=", "@", "\t", "\r")]


@each_name
def test_the_picture_of_a_census_can_be_called_anything(name, tmp_path):
    result = {"activation": name, "test": {"auroc": 0.5}, "width": 8}
    (tmp_path / "result.json").write_text(json.dumps(result))
    keys = [metric.key() for metric in census_plot.COLORS]
    lines = ["epoch," + ",".join(keys), "0,0.5,0.2,0.3", "1,0.5,0.2,0.3"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    census_plot.census([tmp_path]).savefig(tmp_path / "census.png", dpi=40)


@each_name
@pytest.mark.parametrize("html", [True, False])
def test_a_template_escapes_what_it_is_given(name, html, tmp_path):
    (tmp_path / "page").write_text("<p>{{ name }}</p> {{ made }}")
    shown = render(tmp_path / "page", {}, html, name=name, made=Markup("<b>|</b>"))
    assert shown.endswith("<b>|</b>")
    inner = shown.removeprefix("<p>").partition("</p>")[0]
    assert not re.search(r"(?<!\\)<[a-z]|\x1b|\0|\n", inner)
