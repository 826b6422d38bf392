"""`metrics.csv` at a resume: its whole rows before a step, and those that are gone."""

import csv
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from fluoroscope.errors import plural
from fluoroscope.run.csv_logger import STEP
from fluoroscope.run.run_folder import write_text


class Rows(NamedTuple):
    """The rows that are whole and belong to a step before a given one."""

    header: str  # with its line end; "" if it is damaged, and no row has a meaning
    lines: list[str]
    steps: list[int]
    damaged: int  # other lines, without a last one that was cut while it was written


def read_rows(path: Path, step: int) -> Rows:
    """Read `metrics.csv`, whatever has become of it.

    A line that is not text, has other cells than the header has columns, or a cell that is not a
    number, is damaged.
    """
    content = path.read_bytes() if path.exists() else b""
    *whole, _ = content.decode(errors="replace").split("\n")  # the last has no line end
    columns, height = _header(whole)
    if STEP not in columns:
        return Rows("", [], [], max(0, len(whole) - 1))
    header = "".join(line + "\n" for line in whole[:height])
    kept, steps, damaged = [], [], 0
    for line in whole[height:]:
        at = _step(line.split(","), columns)
        damaged += at is None
        if at is not None and at < step:
            kept.append(line)
            steps.append(at)
    return Rows(header, kept, steps, damaged)


def _header(lines: list[str]) -> tuple[list[str], int]:
    """The columns, and the number of lines that name them; no columns if they are not text."""
    reader = csv.reader(line + "\n" for line in lines)
    try:
        columns = next(reader, [])
    except csv.Error:
        return [], 0
    text = not any(set(name) & {"\0", "\ufffd"} for name in columns)
    return columns if text else [], reader.line_num


def _step(cells: list[str], columns: list[str]) -> int | None:
    """The step of a row; None if the row is damaged."""
    try:
        [float(cell) for cell in cells if cell]
        return int(cells[columns.index(STEP)]) if len(cells) == len(columns) else None
    except ValueError:
        return None


def lost_rows(path: Path, step: int, expected: int | None) -> str | None:
    """A sentence on the rows before a step that are gone; None if all are there.

    Args:
        expected: number of rows before the step; None if an older run did not record it.
    """
    rows = read_rows(path, step)
    found = len(rows.lines)
    lost = rows.damaged if expected is None else expected - found
    if lost <= 0 and (found or not step or expected == 0):
        return None
    count = plural(max(lost, 1), "row") if expected is None else f"{lost} of {expected} rows"
    ranges = [f"{a} to {b}" if a < b else str(a) for a, b in _gaps(rows.steps, step)]
    where = f" (steps {', '.join(ranges)})" if ranges else ""
    return (
        f"{path.name} is damaged: {count} before step {step} are gone{where}; the run continues "
        "with the others"
    )


def _gaps(steps: list[int], end: int) -> list[tuple[int, int]]:
    """First and last step of the parts that are longer than the usual distance of two rows."""
    if not steps:
        return [(0, end - 1)]
    parts = [(a, b) for a, b in pairwise([-1, *steps, end]) if b > a]
    usual = median(b - a for a, b in parts)
    return [(a + 1, b - 1) for a, b in parts if b - a > max(usual, 1)]


def rewind_metrics(path: Path, step: int) -> None:
    """Drop the rows from `step` on, which the resumed run will log again, and damaged rows."""
    if path.exists():
        rows = read_rows(path, step)
        write_text(path, rows.header + "".join(line + "\n" for line in rows.lines))


def count_rows(path: Path) -> int:
    """Number of whole lines below the header."""
    if not path.exists():
        return 0
    with path.open(newline="", errors="replace") as file:
        next(csv.reader(file), None)
        return sum(line.endswith("\n") for line in file)
