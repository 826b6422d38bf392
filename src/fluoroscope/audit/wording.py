"""What terminal, page and JSON say alike."""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from fluoroscope.audit.findings import Finding, Findings, plural

Row = Mapping[Hashable, Any]  # of `prevalence.prevalence_table`


def headline(findings: Findings) -> str:
    """`Audit of 732 images of 481 patients: 1 hard finding, 4 soft ones.`"""
    hard, soft = len(findings.hard), len(findings.soft)
    return (
        f"Audit of {plural(findings.images, 'image')} of {plural(findings.patients, 'patient')}: "
        f"{plural(hard, 'hard finding') if hard else 'no hard findings'}, "
        f"{plural(soft, 'soft one') if soft else 'no soft ones'}."
    )


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def decisions(findings: Findings) -> list[str]:
    """What the policies did, a line each."""
    lines = [
        f"{decision.policy} ({', '.join(f'{name} {n:,}' for name, n in decision.counts.items())})"
        for decision in findings.decisions
    ]
    if findings.skipped:
        lines.append(f"images that cannot be used: left out ({findings.skipped:,})")
    return lines


def examples(finding: Finding) -> str:
    """Row numbers, `=` between those that belong together."""
    return ", ".join(" = ".join(map(str, rows)) for rows in finding.examples)


def label_cells(findings: Findings, write: Callable[[Row], str]) -> dict[str, dict[str, str]]:
    """A text for each label and split."""
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
    """`58: 11.2% (8.2-15.2)`, and the unknown ones and soft targets where there are some."""
    if math.isnan(row["prevalence"]):
        return "all unknown"
    share, low, high = (100 * row[name] for name in ("prevalence", "low", "high"))
    told = f"{row['present']:,}: {share:.1f}% ({low:.1f}-{high:.1f})"
    other = {name: row[name] for name in ("between", "unknown") if row[name]}
    return told + "".join(f", {count:,} {name}" for name, count in other.items())


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
