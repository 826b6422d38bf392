"""The audit on a terminal."""

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fluoroscope.audit.findings import NOT_LOOKED_FOR, Finding, Findings
from fluoroscope.audit.wording import brief, decisions, examples, headline, label_cells, sentence


def show(findings: Findings, console: Console) -> None:
    """Splits, labels, what policies did, and every finding with what to do."""
    console.print(Text(headline(findings), style="bold"))
    console.print(_splits(findings))
    console.print(_labels(findings))
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
        lines.append(f"For example rows {examples(finding)}.")
    console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 5)))


def _splits(findings: Findings) -> Table:
    table = _table("split", "images", "patients", "views")
    table.columns[-1].justify = "left"
    for row in findings.splits.to_dict("records"):
        images, patients = f"{row['images']:,}", f"{row['patients']:,}"
        table.add_row(str(row["split"]), images, patients, str(row["views"]) or "-")
    return table


def _labels(findings: Findings) -> Table:
    names = list(findings.splits["split"])
    table = _table("positive images (95 % of share)", *names)
    for label, cells in label_cells(findings, brief).items():
        table.add_row(label, *(cells[name] for name in names))
    return table


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(Text(title), justify="right" if number else "left", overflow="fold")
    return table
