"""The audit as files: a self-contained HTML page, and JSON."""

import json
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fluoroscope.audit import audit_text
from fluoroscope.audit.audit_table import TABLE, audit_table
from fluoroscope.audit.findings import LOOKED_FOR, NOT_LOOKED_FOR, Finding, Findings, Studies
from fluoroscope.audit.inspection import inspect
from fluoroscope.console import make_console, short_path
from fluoroscope.errors import InputError
from fluoroscope.escaping import csv_table
from fluoroscope.files.thumbnails import thumbnail
from fluoroscope.reporting.rendering import css, render

HTML, JSON = "audit.html", "audit.json"
TEMPLATES = Path(__file__).parent / "templates"


def run(
    studies: Studies,
    survey: pd.DataFrame,
    folder: str | Path,
    name_images: bool = False,
    **options: Any,
) -> int:
    """Inspect the studies, print the findings, and write the report and the table of its rows.

    Args:
        studies, survey: of `inspection.inspect`.
        folder: for `audit.html`, `audit.json` and `audit.csv`; created if needed.
        name_images: name and show the examples in the files, which identifies patients.
        options: further arguments of `inspection.inspect`.

    Returns:
        The number of hard findings.
    """
    findings = inspect(studies, survey, named=name_images, **options)
    console = make_console()
    audit_text.print_findings(findings, console)
    table = studies.table.reset_index(drop=True) if name_images else None
    page = write(findings, folder, table, audit_table(studies, survey, name_images))
    print(f"report: {short_path(page)}")
    print(f"rows:   {short_path(page.with_name(TABLE))}")
    return len(findings.hard)


def write(
    findings: Findings,
    folder: str | Path,
    named: pd.DataFrame | None = None,
    rows: pd.DataFrame | None = None,
) -> Path:
    """Write the files.

    Args:
        named: study table from which examples are named and shown; None: only row numbers.
        rows: `audit_table`, to be written too.

    Returns:
        The path of the page.

    Raises:
        InputError: a file cannot be written.
    """
    text = json.dumps(_values(findings, named), indent=1, ensure_ascii=False, default=str)
    page = _page(findings, named)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON).write_text(text + "\n", encoding="utf-8")
        (folder / HTML).write_text(page, encoding="utf-8")
        if rows is not None:
            (folder / TABLE).write_text(csv_table(rows).to_csv(index=False), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"out: cannot write the report to {folder} ({error.strerror}); correct this and run "
            "the same command again, or choose another folder with out=DIR"
        ) from None
    return folder / HTML


def _values(findings: Findings, named: pd.DataFrame | None) -> dict[str, Any]:
    prevalence = findings.prevalence.astype(object).where(findings.prevalence.notna(), None)
    return {
        "images": findings.images,
        "patients": None if findings.patients_known == "none" else findings.patients,
        "patients_known": findings.patients_known,
        "skipped": findings.skipped,
        "hard": len(findings.hard),
        "soft": len(findings.soft),
        "splits": _splits(findings),
        "prevalence": prevalence.to_dict("records"),
        "decisions": [
            {"policy": decision.policy, "counts": dict(decision.counts)}
            for decision in findings.decisions
        ],
        "findings": [_finding_values(finding, named) for finding in findings.found],
        "not_looked_for": NOT_LOOKED_FOR,
    }


def _splits(findings: Findings) -> list[dict[Hashable, Any]]:
    unknown = {"patients": None} if findings.patients_known == "none" else {}
    return [row | unknown for row in findings.splits.to_dict("records")]


def _finding_values(finding: Finding, named: pd.DataFrame | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": finding.name,
        "hard": finding.hard,
        "count": finding.count,
        "sentence": finding.sentence,
        "advice": finding.advice,
        "rows": [list(rows) for rows in finding.examples],
    }
    if named is not None:
        values["files"] = [[named["path"][row] for row in rows] for rows in finding.examples]
    return values


def _page(findings: Findings, named: pd.DataFrame | None) -> str:
    names = {finding.name for finding in findings.found}
    return render(
        TEMPLATES / "audit.html",
        {"sentence": audit_text.sentence},
        autoescape=True,
        css=css(TEMPLATES / "audit.css"),
        headline=audit_text.headline(findings),
        findings=findings,
        kinds=[("Hard", findings.hard), ("Soft", findings.soft)],
        splits=findings.splits.to_dict("records"),
        patients_cell=audit_text.patients_cell,
        narrow=findings.patients_known != "all",
        table=TABLE,
        labels=audit_text.label_cells(findings, audit_text.full),
        intervals=_intervals(findings.prevalence),
        decisions=audit_text.decisions(findings),
        examples=audit_text.examples,
        pictures={id(f): list(_pictures(f, named)) for f in findings.found},
        identity=id,
        not_found=[words for name, words in LOOKED_FOR.items() if name not in names],
        not_looked_for=NOT_LOOKED_FOR,
    )


def _intervals(prevalence: pd.DataFrame) -> dict[str, list[dict[Hashable, float]]]:
    """Interval and share of each label and split, in units of the longest bar."""
    known = prevalence.dropna(subset=["prevalence"])
    longest = max(known["high"].max(), 1e-9) if len(known) else 1.0
    columns = ["low", "prevalence", "high"]
    return {
        str(label): (rows[columns] / longest).to_dict("records")
        for label, rows in known.groupby("label", sort=False)
    }


def _pictures(finding: Finding, named: pd.DataFrame | None) -> Iterator[list[dict[str, str]]]:
    """The images of each example; none if images must not be named."""
    if named is None:
        return
    for rows in finding.examples:
        yield [
            {"row": str(row), "path": named["path"][row], "image": thumbnail(named["path"][row])}
            for row in rows[:4]
        ]
