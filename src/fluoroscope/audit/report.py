"""The audit as files: one HTML page that needs nothing else, and JSON beside it."""

import base64
import json
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
from rich.console import Console

from fluoroscope.audit import wording
from fluoroscope.audit.console import show
from fluoroscope.audit.findings import LOOKED_FOR, NOT_LOOKED_FOR, Finding, Findings, Studies
from fluoroscope.audit.inspection import inspect
from fluoroscope.errors import InputError
from fluoroscope.files.images import UnreadableError, decode
from fluoroscope.reporting.rendering import css, render

HTML, JSON = "audit.html", "audit.json"
TEMPLATES = Path(__file__).parent / "templates"
PICTURE_PX = 144


def run(
    studies: Studies,
    survey: pd.DataFrame,
    folder: str | Path,
    name_images: bool = False,
    **look: Any,
) -> int:
    """Inspect, tell the terminal and write the report; the number of hard findings.

    Args:
        studies, survey: of `inspection.inspect`.
        folder: for `audit.html` and `audit.json`; is made.
        name_images: the files also name and show the examples, which are patients.
        look: the further arguments of `inspection.inspect`.
    """
    findings = inspect(studies, survey, **look)
    console = Console()
    show(findings, console)
    table = studies.table.reset_index(drop=True) if name_images else None
    page = write(findings, folder, table)
    console.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return len(findings.hard)


def write(findings: Findings, folder: str | Path, named: pd.DataFrame | None = None) -> Path:
    """Write both files; the page's path.

    Args:
        named: study table to name and show examples from; None gives their row numbers alone.

    Raises:
        InputError: they cannot be written.
    """
    text = json.dumps(_values(findings, named), indent=1, ensure_ascii=False, default=str)
    page = _page(findings, named)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON).write_text(text + "\n", encoding="utf-8")
        (folder / HTML).write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"out: cannot write the report to {folder} ({error.strerror}); call the same line "
            "again once that is put right, or give another folder with out=DIR"
        ) from None
    return folder / HTML


def _values(findings: Findings, named: pd.DataFrame | None) -> dict[str, Any]:
    prevalence = findings.prevalence.astype(object).where(findings.prevalence.notna(), None)
    return {
        "images": findings.images,
        "patients": findings.patients,
        "skipped": findings.skipped,
        "hard": len(findings.hard),
        "soft": len(findings.soft),
        "splits": findings.splits.to_dict("records"),
        "prevalence": prevalence.to_dict("records"),
        "decisions": [
            {"policy": decision.policy, "counts": dict(decision.counts)}
            for decision in findings.decisions
        ],
        "findings": [_finding_values(finding, named) for finding in findings.found],
        "not_looked_for": NOT_LOOKED_FOR,
    }


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
        {"sentence": wording.sentence},
        autoescape=True,
        css=css(TEMPLATES / "audit.css"),
        headline=wording.headline(findings),
        findings=findings,
        kinds=[("Hard", findings.hard), ("Soft", findings.soft)],
        splits=findings.splits.to_dict("records"),
        labels=wording.label_cells(findings, wording.full),
        intervals=_intervals(findings.prevalence),
        decisions=wording.decisions(findings),
        examples=wording.examples,
        pictures={id(f): list(_pictures(f, named)) for f in findings.found},
        identity=id,
        not_found=[told for name, told in LOOKED_FOR.items() if name not in names],
        not_looked_for=NOT_LOOKED_FOR,
    )


def _intervals(prevalence: pd.DataFrame) -> dict[str, list[dict[Hashable, float]]]:
    """Per label, the interval and the share of each split, as shares of the longest bar."""
    known = prevalence.dropna(subset=["prevalence"])
    longest = max(known["high"].max(), 1e-9) if len(known) else 1.0
    columns = ["low", "prevalence", "high"]
    return {
        str(label): (rows[columns] / longest).to_dict("records")
        for label, rows in known.groupby("label", sort=False)
    }


def _pictures(finding: Finding, named: pd.DataFrame | None) -> Iterator[list[dict[str, str]]]:
    """The examples, those that belong together in one list; nothing where none may be named."""
    if named is None:
        return
    for rows in finding.examples:
        yield [
            {"row": str(row), "path": named["path"][row], "image": _data_uri(named["path"][row])}
            for row in rows[:4]
        ]


def _data_uri(path: str) -> str:
    """A small PNG, or nothing of what cannot be read."""
    try:
        pixels = decode(path)
    except UnreadableError:
        return ""
    scale = PICTURE_PX / max(pixels.shape)
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[::-1])
    png = cv2.imencode(".png", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))[1]
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
