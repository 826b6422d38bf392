"""The audit in words, for page, terminal and JSON; and as tables on the terminal."""

import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fluoroscope.audit.audit_table import TABLE
from fluoroscope.audit.findings import NOT_LOOKED_FOR, Finding, Findings
from fluoroscope.console import fitting_tables
from fluoroscope.errors import plural

Row = Mapping[Hashable, Any]  # of `prevalence.prevalence_table`


def headline(findings: Findings) -> str:
    """`Audit of 732 images of 481 patients: 1 hard finding, 4 soft ones.`"""
    hard, soft = len(findings.hard), len(findings.soft)
    return (
        f"Audit of {plural(findings.images, 'image')}{_of_patients(findings)}: "
        f"{plural(hard, 'hard finding') if hard else 'no hard findings'}, "
        f"{plural(soft, 'soft one') if soft else 'no soft ones'}."
    )


def _of_patients(findings: Findings) -> str:
    if findings.patients_known == "none":
        return " of unknown patients"
    most = "at most " if findings.patients_known == "some" else ""
    return f" of {most}{plural(findings.patients, 'patient')}"


def patients_cell(findings: Findings, row: Row) -> str:
    """The number of patients of a split; `?` if patients are unknown."""
    return "?" if findings.patients_known == "none" else f"{row['patients']:,}"


def sentence(text: str) -> str:
    """Text with a full stop and a capital first letter, unless it begins with a key.

    >>> sentence("no image is left"), sentence("data.exclude: left out")
    ('No image is left.', 'data.exclude: left out.')
    """
    begins_with_key = re.match(r"[a-z]+\.[a-z]", text)
    return f"{text if begins_with_key else text[:1].upper() + text[1:]}."


def decisions(findings: Findings) -> list[str]:
    """The effect of each policy, one line each."""
    lines = [
        f"{decision.policy} ({', '.join(f'{name} {n:,}' for name, n in decision.counts.items())})"
        for decision in findings.decisions
    ]
    if findings.skipped:
        lines.append(f"left out: {plural(findings.skipped, 'image')} that cannot be used")
    return lines


def examples(finding: Finding) -> str:
    """Row numbers, with `=` between those of one example."""
    return ", ".join(" = ".join(map(str, rows)) for rows in finding.examples)


def label_cells(findings: Findings, write: Callable[[Row], str]) -> dict[str, dict[str, str]]:
    """A text for each label and split: `cells[label][split]`."""
    cells: dict[str, dict[str, str]] = {}
    for row in findings.prevalence.to_dict("records"):
        cells.setdefault(str(row["label"]), {})[str(row["split"])] = write(row)
    return cells


def brief(row: Row) -> str:
    """`58 (8.2-15%)`."""
    low, high = (100 * row[name] for name in ("low", "high"))
    if math.isnan(low):
        return "all unknown"
    return f"{row['present']:,} ({_percent(low)}-{_percent(high)}%)"


def full(row: Row) -> str:
    """`58: 11.2% (8.2-15.2)`, followed by the counts of soft and unknown labels, if any."""
    if math.isnan(row["prevalence"]):
        return "all unknown"
    share, low, high = (100 * row[name] for name in ("prevalence", "low", "high"))
    text = f"{row['present']:,}: {share:.1f}% ({low:.1f}-{high:.1f})"
    other = {name: row[name] for name in ("between", "unknown") if row[name]}
    return text + "".join(f", {count:,} {name}" for name, count in other.items())


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def print_findings(findings: Findings, console: Console) -> None:
    """Print splits, labels, effects of the policies, and every finding with its advice."""
    console.print(Text(headline(findings), style="bold"))
    for table in (*_splits(findings, console.width), *_labels(findings, console.width)):
        console.print()
        console.print(table)
    console.print()
    if findings.patients_known != "all":
        console.print(Text("These intervals are too narrow, because not all patients are known."))
    for line in decisions(findings):
        console.print(Text(sentence(line)))
    for kind, found in (("HARD", findings.hard), ("soft", findings.soft)):
        for finding in found:
            _print_finding(console, kind, finding)
    console.print(Text(NOT_LOOKED_FOR))


def _print_finding(console: Console, kind: str, finding: Finding) -> None:
    style = "bold red" if finding.hard else "bold"
    console.print(Text.assemble((kind, style), f" {finding.name}"))
    lines = [sentence(finding.sentence), sentence(finding.advice)]
    if finding.examples:
        lines.append(f"For example rows {examples(finding)} of {TABLE}.")
    console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 5)))


def _splits(findings: Findings, width: int) -> Iterator[Table]:
    rows = []
    for row in findings.splits.to_dict("records"):
        images, patients = f"{row['images']:,}", patients_cell(findings, row)
        rows.append([str(row["split"]), images, patients, str(row["views"]) or "-"])
    return fitting_tables(["split", "images", "patients", "views"], rows, width)


def _labels(findings: Findings, width: int) -> Iterator[Table]:
    names = list(findings.splits["split"])
    rows = [
        [label, *(cells[name] for name in names)]
        for label, cells in label_cells(findings, brief).items()
    ]
    return fitting_tables(["positive images (95 % of share)", *names], rows, width)
