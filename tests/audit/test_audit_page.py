"""The audit on the terminal, as a page and as JSON."""

import io
import json
import re

import cv2
import pandas as pd
import pytest
from rich.console import Console

from fluoroscope import audit
from fluoroscope.audit.audit_text import label_cells, print_findings
from fluoroscope.audit.findings import LOOKED_FOR, NOT_LOOKED_FOR
from fluoroscope.data.study_table import Decision
from tests.audit.collection import Studies, chest, surveyed, write_clean
from tests.support.chromium import measure, needs_chromium

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def studies(root):
    """A hard finding with two examples, a soft one, a label that is HTML, and two decisions."""
    table = write_clean(root).rename(columns={"Mass": HOSTILE})
    cv2.imwrite(table.loc[0, "path"], chest(120))
    cv2.imwrite(table.loc[9, "path"], cv2.resize(chest(9), (50, 50)))
    table["view"] = "PA"
    decisions = (Decision("uncertain labels: ignore", {"Edema": 1200}),)
    return Studies(table, ["Edema", HOSTILE], 3, decisions)


@pytest.fixture(scope="module")
def findings(studies, root):
    return audit.inspect(studies, surveyed(studies.table, root))


@pytest.fixture(scope="module")
def page(findings, tmp_path_factory):
    return audit.write(findings, tmp_path_factory.mktemp("report")).read_text()


def printed(findings, width=80):
    stream = io.StringIO()
    print_findings(findings, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_terminal_shows_everything_in_80_columns(findings):
    text = printed(findings)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "Audit of 160 images of 80 patients: 1 hard finding, 2 soft ones." in flat
    assert "Uncertain labels: ignore (Edema 1,200)." in flat
    assert "Left out: 3 images that cannot be used." in flat
    assert "HARD copies-across-splits" in flat
    assert "For example rows 0 = 120 of audit.csv." in flat
    assert "soft tiny-images" in flat
    assert NOT_LOOKED_FOR in flat
    assert "\x1b" not in text
    assert re.search(r"train +80 +40 +PA 100%", text)


def test_the_page_shows_the_same(findings, page):
    for finding in findings.found:
        assert finding.name in page
    assert "Audit of 160 images of 80 patients: 1 hard finding, 2 soft ones." in page
    assert "0 = 120" in page
    for cells in label_cells(findings, lambda row: f"{row['present']}: ").values():
        assert all(cell in page for cell in cells.values())
    listed = [words for name, words in LOOKED_FOR.items() if f"<li>{words}</li>" in page]
    assert len(listed) == len(LOOKED_FOR) - len({finding.name for finding in findings.found})


def test_the_page_is_self_contained_and_runs_no_script(page):
    assert HOSTILE not in page
    assert not re.search(r"<(script|link|iframe)|https?:|url\(|@import", page)
    assert "default-src 'none'" in page


def test_nothing_names_a_patient(findings, page, root, tmp_path):
    audit.write(findings, tmp_path)
    for text in (page, (tmp_path / "audit.json").read_text(), printed(findings)):
        assert not re.search(r"p\d\d", text)
        assert str(root) not in text
        assert "data:image" not in text


def test_examples_are_named_and_shown_when_asked(findings, studies, tmp_path):
    page = audit.write(findings, tmp_path, studies.table).read_text()
    paths = studies.table["path"]
    assert page.count("data:image/png;base64,") == 5  # copies of two kinds, and a small one
    assert f"120: {paths[120]}" in page
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["findings"][0]["files"] == [[paths[0], paths[120]]]


def test_json_holds_the_numbers(findings, tmp_path):
    audit.write(findings, tmp_path)
    written = json.loads((tmp_path / "audit.json").read_text())
    assert (written["images"], written["patients"], written["hard"], written["soft"]) == (
        160,
        80,
        1,
        2,
    )
    assert written["skipped"] == 3
    assert written["decisions"] == [
        {"policy": "uncertain labels: ignore", "counts": {"Edema": 1200}}
    ]
    assert written["findings"][0]["rows"] == [[0, 120]]
    assert written["prevalence"][0]["present"] == 40
    assert 0.3 < written["prevalence"][0]["low"] < 0.5 == written["prevalence"][0]["prevalence"]


def test_run_counts_the_hard_findings(studies, root, tmp_path, capsys):
    survey = surveyed(studies.table, root)
    assert audit.run(studies, survey, tmp_path / "new" / "folder") == 1
    assert "report: " in capsys.readouterr().out
    report = (tmp_path / "new/folder/audit.html").read_text()
    assert studies.table["path"][120] not in report
    audit.run(studies, survey, tmp_path, name_images=True)
    assert studies.table["path"][120] in (tmp_path / "audit.html").read_text()
    clean = studies.table.drop(index=0), survey.drop(index=0)
    assert audit.run(studies._replace(table=clean[0]), clean[1], tmp_path) == 0


def test_the_rows_are_written_as_a_table(studies, root, tmp_path):
    survey = surveyed(studies.table, root)
    audit.run(studies, survey, tmp_path / "plain")
    rows = pd.read_csv(tmp_path / "plain/audit.csv")
    labels = ["Edema", HOSTILE]
    assert list(rows) == ["row", "group", "split", "view", *labels, "width", "height", "reason"]
    assert rows["row"].tolist() == list(range(160))
    assert rows.loc[9, ["width", "height"]].tolist() == [50, 50]  # the film of `tiny-images`
    assert rows["group"].nunique() == 80
    assert not re.search(r"p\d\d", (tmp_path / "plain/audit.csv").read_text())
    audit.run(studies, survey, tmp_path / "named", name_images=True)
    rows = pd.read_csv(tmp_path / "named/audit.csv")
    assert rows["path"].tolist() == studies.table["path"].tolist()
    assert rows["patient"].tolist() == studies.table["patient"].tolist()


@pytest.mark.parametrize(
    ("known", "told"), [("none", "of unknown patients"), ("some", "of at most 80 patients")]
)
def test_unknown_patients_are_not_counted(studies, root, tmp_path, known, told):
    findings = audit.inspect(studies, surveyed(studies.table, root), patients_known=known)
    text, page = printed(findings), audit.write(findings, tmp_path).read_text()
    assert f"Audit of 160 images {told}: " in " ".join(text.split())
    assert f"Audit of 160 images {told}: " in page
    assert re.search(rf"train +80 +{'[?]' if known == 'none' else '40'} +PA", text)
    assert "These intervals are too narrow" in text
    assert "the intervals are too narrow" in page
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["patients"] == (None if known == "none" else 80)
    assert written["patients_known"] == known
    assert [row["patients"] for row in written["splits"]] == (
        [None] * 3 if known == "none" else [40, 20, 20]
    )
    assert ("patients-missing" in {f.name for f in findings.found}) == (known == "some")


@needs_chromium
@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_fits(page, width, tmp_path):
    function = "page => page.documentElement.scrollWidth"
    assert measure(page, function, width, tmp_path) <= width
