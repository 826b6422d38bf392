"""The figure of the verdict: differences to the reference with their intervals, and the census.

One row per activation. Left, the interval of its difference against the margin; right, how its
units divide into dead, linear and nonlinear ones. Findings differ in shape and fill, kinds of units
in their order and hatching, so that the figure needs no colour.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fluoroscope.diagnostics.keys import DEAD, LINEAR, NONLINEAR
from fluoroscope.reporting.charts import Chart, label_width_in, short, signed
from fluoroscope.reporting.columns import SHOWN, UNKNOWN, interval, number
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.theme import LIGHT

WIDTH_IN, ROW_IN = 4.3, 0.19
TOP_IN, BOTTOM_IN, RIGHT_IN = 0.46, 0.42, 0.1
BAR_IN, SHARE_IN, GAP_IN = 0.8, 0.42, 0.12  # the bar of the census, the dead share, space
END = WIDTH_IN - RIGHT_IN
BAR_AT = END - SHARE_IN - BAR_IN
SMALL: Any = {"fontsize": 7.5, "va": "center"}


class Mark(NamedTuple):
    """How a finding is drawn: filled if something was found."""

    shape: str
    color: str
    filled: bool


MARKS = {
    "better": Mark("^", LIGHT["green"], True),
    "worse": Mark("v", LIGHT["dead"], True),
    "equivalent": Mark("s", LIGHT["blue"], True),
    "undecided": Mark("o", LIGHT["muted"], False),
}
CENSUS: dict[str, dict[str, Any]] = {
    DEAD.column: {"fc": LIGHT["dead"], "ec": LIGHT["dead"]},
    LINEAR.column: {"fc": LIGHT["ground"], "ec": LIGHT["blue"], "hatch": "//////"},
    NONLINEAR.column: {"fc": LIGHT["ground"], "ec": LIGHT["rest"]},
}


def order(comparison: Comparison) -> list[str]:
    """The rows of all settings in one order: the reference, then by falling mean AUROC."""
    rows = pd.concat([setting.rows for setting in comparison.settings])
    means = rows.groupby("activation", sort=False)["auroc"].mean()
    means = means.sort_values(ascending=False, kind="stable")
    return sorted(means.index, key=lambda name: name != comparison.reference)


def limits(comparison: Comparison) -> tuple[float, float]:
    """The ends of the axis of differences, the same for all settings; the margin lies within."""
    rows = pd.concat([setting.rows for setting in comparison.settings])
    columns = rows[["difference", "difference_low", "difference_high"]]
    edge = 1.25 * comparison.rule.margin
    low = float(np.nanmin([columns.min().min(), -edge]))
    high = float(np.nanmax([columns.max().max(), edge]))
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def draw(comparison: Comparison, setting: SettingTable) -> Chart:
    """The figure of one setting; every setting has the same rows, order and scale.

    Differences that are not known are left out, a census that was not measured is `n/a`.
    """
    rows = setting.rows.set_index("activation")
    names = [name for name in order(comparison) if name in rows.index]
    rows = rows.loc[names]
    height = TOP_IN + ROW_IN * len(names) + BOTTOM_IN
    figure = Figure(figsize=(WIDTH_IN, height))
    canvas = _canvas(figure, height)
    axes = _axes(figure, comparison, label_width_in(names), len(names), height)
    _legend(canvas, comparison.rule.margin, height)
    for y, (name, row) in enumerate(rows.iterrows()):
        middle = height - TOP_IN - ROW_IN * (y + 0.5)
        _name(canvas, str(name), middle, bold=name == comparison.reference)
        _difference(axes, row, y)
        _census(canvas, row, middle)
    for x, side, text in ((BAR_AT, "left", "units"), (END, "right", "dead")):
        canvas.text(x, BOTTOM_IN - 0.13, text, ha=side, color=LIGHT["muted"], **SMALL)
    listed = "; ".join(f"{name} {_told(row)}" for name, row in rows.iterrows())
    what = f"Test AUROC minus {comparison.reference}'s with its interval, and units of the head"
    return Chart(figure, f"{what}; margin {comparison.rule.margin}: {listed}.")


def _canvas(figure: Figure, height: float) -> Axes:
    """Axes over the whole figure, in inches."""
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set_axis_off()
    canvas.set(xlim=(0, WIDTH_IN), ylim=(0, height))
    return canvas


def _axes(figure: Figure, comparison: Comparison, left: float, rows: int, height: float) -> Axes:
    """The axes of the differences: the margin as a band, zero as a line."""
    width = BAR_AT - GAP_IN - left
    box = (left / WIDTH_IN, BOTTOM_IN / height, width / WIDTH_IN, rows * ROW_IN / height)
    axes, margin = figure.add_axes(box), comparison.rule.margin
    axes.axvspan(-margin, margin, color=LIGHT["line"], alpha=0.45, lw=0)
    axes.axvline(0, color=LIGHT["ink"], lw=1)
    axes.set(xlim=limits(comparison), ylim=(rows - 0.5, -0.5))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5 if width > 1.5 else 3, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.set_xlabel(f"test AUROC minus {short(comparison.reference)}'s")
    return axes


def _tick(value: float) -> str:
    return number(value, "+.3g") if value else "0"


def _legend(canvas: Axes, margin: float, height: float) -> None:
    x, y = 0.1, height - 0.11
    for finding, mark in MARKS.items():
        _draw_mark(canvas, x, y, mark)
        x = _label(canvas, x + 0.08, y, SHOWN.get(finding, finding))
    y -= 0.18
    _box(canvas, 0.04, y, 0.13, {"fc": LIGHT["line"], "ec": "none", "alpha": 0.6})
    x = _label(canvas, 0.2, y, f"margin ±{margin:g}") - 0.06
    for kind, style in CENSUS.items():
        _box(canvas, x, y, 0.13, style)
        x = _label(canvas, x + 0.16, y, f"{kind} units")


def _label(canvas: Axes, x: float, y: float, text: str) -> float:
    """A small text; returns where the next item begins."""
    canvas.text(x, y, text, color=LIGHT["muted"], **SMALL)
    return x + 0.06 * len(text) + 0.22


def _name(canvas: Axes, name: str, y: float, bold: bool) -> None:
    canvas.text(0.04, y, short(name), va="center", weight="bold" if bold else "normal")


def _difference(axes: Axes, row: pd.Series, y: float) -> None:
    """The interval and the mark of a row; of the reference, its AUROC."""
    if row["finding"] == "reference":
        text = f"reference, AUROC {number(row['auroc'])}"
        middle = sum(axes.get_xlim()) / 2
        ground: Any = {"fc": LIGHT["ground"], "ec": "none", "pad": 1.2}
        axes.text(middle, y, text, ha="center", color=LIGHT["muted"], bbox=ground, **SMALL)
        return
    mark = MARKS[row["finding"]]
    low, high = row["difference_low"], row["difference_high"]
    axes.plot([low, high], [y, y], color=mark.color, lw=1.5, solid_capstyle="butt")
    _draw_mark(axes, row["difference"], y, mark)


def _draw_mark(axes: Axes, x: float, y: float, mark: Mark) -> None:
    fill = mark.color if mark.filled else LIGHT["ground"]
    axes.plot(x, y, mark.shape, ms=4.8, mec=mark.color, mfc=fill, mew=1.2)


def _census(canvas: Axes, row: pd.Series, y: float) -> None:
    """The units of a row as a stacked bar, with the dead share as a number."""
    x, text = BAR_AT, number(row[DEAD.column], DEAD.form)
    canvas.text(END, y, text, ha="right", color=LIGHT["ink"], **SMALL)
    shares = {kind: row[kind] for kind in CENSUS}
    if any(map(math.isnan, shares.values())):
        return
    for kind, share in shares.items():
        if share > 0:
            _box(canvas, x, y, share * BAR_IN, CENSUS[kind])
        x += share * BAR_IN


def _box(canvas: Axes, x: float, y: float, width: float, style: dict[str, Any]) -> None:
    canvas.add_patch(Rectangle((x, y - 0.055), width, 0.11, lw=0.8, **style))


def _told(row: pd.Series) -> str:
    """A row of the figure in words."""
    if row["finding"] == "reference":
        found = f"reference, AUROC {number(row['auroc'])}"
    else:
        bounds = interval(row["difference_low"], row["difference_high"], "+.3f")
        found = (
            f"{signed(row['difference'])} ({bounds}), {SHOWN.get(row['finding'], row['finding'])}"
        )
    shares = [f"{kind} {number(row[kind], DEAD.form)}" for kind in CENSUS]
    return ", ".join([found, *(shares if UNKNOWN not in shares[0] else ["units not measured"])])
