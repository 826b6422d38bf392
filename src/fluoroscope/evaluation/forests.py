"""AUROCs with their intervals, one below the other: of the labels, and of groups of images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fluoroscope.escaping import figure_text
from fluoroscope.evaluation.wording import Values, estimate, is_known, known
from fluoroscope.reporting.charts import CHARACTER_IN, Chart
from fluoroscope.reporting.theme import LIGHT

WIDTH_IN, ROW_IN, TOP_IN, BOTTOM_IN, RIGHT_IN = 4.3, 0.2, 0.1, 0.42, 0.12
NAME = 24  # characters of a name
NUMBERS_IN = 1.25  # room of a number with its interval
SMALL: Any = {"fontsize": 7.5, "va": "center"}


class Row(NamedTuple):
    """A line of the figure.

    Attributes:
        name: shortened where it is drawn.
        values: the estimate; None for a heading.
        note: in place of the numbers, if the estimate is not known.
        differs: whether it is marked as better (1) or worse (-1) than the reference.
        bold: for the mean, all images and headings.
        indented: below a heading.
    """

    name: str
    values: Values | None
    note: str = ""
    differs: int = 0
    bold: bool = False
    indented: bool = False


def forest(rows: Sequence[Row], middle: float, what: str) -> Chart:
    """The rows from top to bottom, with a line at `middle`.

    Args:
        rows: at least one.
        middle: value of the line, that of all images together; NaN draws none.
        what: beginning of the text alternative.
    """
    height = TOP_IN + ROW_IN * len(rows) + BOTTOM_IN
    figure = Figure(figsize=(WIDTH_IN, height))
    names = [figure_text(row.name, NAME) for row in rows]
    left = 0.2 + CHARACTER_IN * max(map(len, names))
    width = WIDTH_IN - left - NUMBERS_IN - RIGHT_IN
    size = (width / WIDTH_IN, ROW_IN * len(rows) / height)
    axes = figure.add_axes((left / WIDTH_IN, BOTTOM_IN / height, *size))
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=_limits(rows, middle), xlabel="AUROC")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")
    if not np.isnan(middle):
        axes.axvline(middle, color=LIGHT["muted"], ls=(0, (4, 3)), lw=0.9)
    for y, (row, name) in enumerate(zip(rows, names, strict=True)):
        place = 1 - (TOP_IN + ROW_IN * (y + 0.5)) / height
        style: Any = {"weight": "bold" if row.bold else "normal", "va": "center"}
        figure.text((0.04 + 0.12 * row.indented) / WIDTH_IN, place, name, **style)
        figure.text(0.98, place, _numbers(row), ha="right", color=LIGHT["muted"], **SMALL)
        _draw(axes, row, y)
    told = "; ".join(f"{row.name} {_said(row)}" for row in rows if row.values or row.note)
    return Chart(figure, f"{what}: {told}.")


def _limits(rows: Sequence[Row], middle: float) -> tuple[float, float]:
    ends = [known((row.values or {}).get(key)) for row in rows for key in ("value", "low", "high")]
    ends = [end for end in (*ends, middle) if not np.isnan(end)] or [0.5, 1.0]
    low, high = min(ends), max(ends)
    room = max(0.04 * (high - low), 0.01)
    return max(-0.01, low - room), min(1.01, high + room)


def _numbers(row: Row) -> str:
    return estimate(row.values, ".2f") if is_known(row.values) else row.note


def _said(row: Row) -> str:
    differs = {1: ", better", -1: ", worse", 0: ""}[row.differs]
    return (estimate(row.values) if is_known(row.values) else row.note) + differs


def _draw(axes: Axes, row: Row, y: float) -> None:
    if row.values is None or not is_known(row.values):
        return
    colors = {1: LIGHT["green"], -1: LIGHT["dead"], 0: LIGHT["ink" if row.bold else "blue"]}
    color, marker = colors[row.differs], {1: "^", -1: "v", 0: "s" if row.bold else "o"}[row.differs]
    low, high = known(row.values["low"]), known(row.values["high"])
    axes.plot([low, high], [y, y], color=color, lw=1.5, solid_capstyle="butt")
    axes.plot(row.values["value"], y, marker, color=color, ms=4.8)


def label_forest(content: Values) -> Chart:
    """The AUROC of each label, and their mean; labels that are not judged say so."""
    rows = [Row("mean", content["macro"]["auroc"], "n/a", bold=True)]
    for name, label in content["labels"].items():
        rows.append(Row(name, label["auroc"], "" if label["judged"] else "not judged"))
    middle = known(content["macro"]["auroc"]["value"])
    return forest(rows, middle, "AUROC of each label with its 95 % interval")


def group_forest(groups: Sequence[Values], overall: Values, whose: str) -> Chart:
    """The AUROC of groups of images, below the name of what divides them.

    Args:
        groups: of one label, from `subgroups` of `evaluation.json`.
        overall: estimate of all images together.
        whose: of the label, or "mean".
    """
    rows = [Row("all images", overall, "n/a", bold=True)]
    for attribute in dict.fromkeys(group["attribute"] for group in groups):
        rows.append(Row(f"{attribute}:", None, bold=True))
        own = [group for group in groups if group["attribute"] == attribute]
        rows += [
            Row(str(group["group"]), group["auroc"], "too few", differs(group), indented=True)
            for group in own
        ]
    what = f"AUROC of groups of images, {whose}, with 95 % intervals"
    return forest(rows, known(overall["value"]), what)


def differs(group: Values) -> int:
    """1 if the AUROC of the group is surely higher than the reference's, -1 if lower, else 0."""
    gap = group["gaps"].get("auroc")
    if gap is None or gap["low"] is None:
        return 0
    return int(gap["low"] > 0) - int(gap["high"] < 0)
