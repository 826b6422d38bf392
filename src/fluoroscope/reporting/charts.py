"""Figures of a comparison that show one number per run, activation or unit.

Each function returns a matplotlib figure in the light colours of `theme` and its text alternative.
Call them within `matplotlib.rc_context(theme.RC)`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fluoroscope.escaping import figure_text
from fluoroscope.reporting.columns import EFFECT, FINDINGS, number
from fluoroscope.reporting.theme import LIGHT, Style

WIDTH_IN = 3.4  # narrow enough that its type stays readable on a phone
CHARACTER_IN = 0.068  # width of a character at 8 points
UNITS_SHOWN = 224
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g}%")


class Chart(NamedTuple):
    """A drawn figure with its text alternative."""

    figure: Figure
    alt: str


def short(activation: str) -> str:
    """The activation without the names of its arguments, for labels.

    >>> short("leaky_relu(negative_slope=0.1)")
    'leaky_relu(0.1)'
    """
    name, bracket, arguments = activation.partition("(")
    values = [part.partition("=")[2] or part for part in arguments.rstrip(")").split(", ")]
    label = f"{name}({', '.join(values)})" if bracket else name
    return figure_text(label, 22)


def panel(
    height_in: float, left_in: float, right_in: float = 0.12, top_in: float = 0.1
) -> tuple[Figure, Axes]:
    """A figure of the common width and its axes, with room for an axis label below."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    bottom_in = 0.42
    size = (WIDTH_IN - left_in - right_in, height_in - bottom_in - top_in)
    box = (left_in / WIDTH_IN, bottom_in / height_in, size[0] / WIDTH_IN, size[1] / height_in)
    return figure, figure.add_axes(box)


def label_width_in(names: Sequence[str]) -> float:
    return CHARACTER_IN * max(len(short(name)) for name in names) + 0.15


def signed(value: float) -> str:
    return number(value, "+.3f")


def forest(rows: pd.DataFrame, reference: str, looks: Mapping[str, Style], margin: float) -> Chart:
    """Paired differences to the reference with their intervals, one row per activation.

    Args:
        rows: from a `SettingTable`.
        margin: half the width of the grey band around zero.
    """
    others = rows[rows["activation"] != reference].reset_index(drop=True)
    names = list(others["activation"])
    figure, axes = panel(0.62 + 0.21 * len(names), label_width_in(names))
    axes.axvspan(-margin, margin, color=LIGHT["line"], alpha=0.45, lw=0)
    axes.axvline(0, color=LIGHT["ink"], lw=1.2)
    for y, (_, row) in enumerate(others.iterrows()):
        look = looks[row["activation"]]
        axes.plot([row["difference_low"], row["difference_high"]], [y, y], color=look.color, lw=1.6)
        fill = look.color if row["finding"] in FINDINGS else LIGHT["ground"]
        axes.plot(row["difference"], y, look.marker, ms=5, mec=look.color, mfc=fill, mew=1.3)
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.tick_params(axis="y", length=0, labelcolor=LIGHT["ink"])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.05)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"test AUROC minus {short(reference)}'s, same seed")
    axes.spines["left"].set_visible(False)
    differences = "; ".join(
        f"{row['activation']} {signed(row['difference'])} "
        f"({signed(row['difference_low'])} to {signed(row['difference_high'])})"
        for _, row in others.iterrows()
    )
    return Chart(figure, f"Difference to {reference} in test AUROC, 95 % interval: {differences}.")


def scatter(by_run: pd.DataFrame, looks: Mapping[str, Style]) -> Chart:
    """Dead share of the last validation against test AUROC, one dot per run.

    Args:
        by_run: from a `SettingTable`.
    """
    dots = by_run[["activation", "dead", "auroc"]].dropna()
    figure, axes = panel(2.9, 0.68, top_in=0.62)
    for name, group in dots.groupby("activation", sort=False):
        look = looks[str(name)]
        style: Any = {"mec": look.color, "mfc": "none", "ms": 4.5, "mew": 1.1, "ls": "none"}
        label = short(str(name)) if look.highlighted else None
        z = 3 if look.highlighted else 2
        axes.plot(group["dead"], group["auroc"], look.marker, label=label, zorder=z, **style)
    _legend(axes, next((look for look in looks.values() if not look.highlighted), None))
    top = max(dots["dead"].max(), 0.01)
    axes.set_xlim(-0.04 * top, 1.05 * top)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(axis="y")
    axes.set(xlabel="dead units, last validation", ylabel="test AUROC")
    ranges = "; ".join(
        f"{name} dead {group['dead'].min():.1%} to {group['dead'].max():.1%}, "
        f"AUROC {group['auroc'].min():.3f} to {group['auroc'].max():.3f}"
        for name, group in dots.groupby("activation", sort=False)
    )
    return Chart(figure, f"Dead share and test AUROC of {len(dots)} runs: {ranges}.")


def _legend(axes: Axes, rest: Style | None) -> None:
    """A legend above the axes, with one entry for all activations that are not highlighted."""
    if rest is not None:
        style: Any = {"mec": rest.color, "mfc": "none", "ms": 4.5, "ls": "none"}
        axes.plot([], [], rest.marker, label="others", **style)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.2, 1.0),
        ncols=3,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.1,
        columnspacing=0.9,
        borderaxespad=0.2,
    )


def matrix(
    table: pd.DataFrame, what: str, diverging: bool, found: pd.DataFrame | None = None
) -> Chart:
    """Heat map, activations down and settings across, with the number in each cell.

    Args:
        table: one row per activation, one column per setting (its number from 1).
        what: the quantity, e.g. `dead share`.
        diverging: the values are differences around 0; otherwise shares from 0.
        found: shape of `table`; True marks a cell as a finding, with a star.
    """
    figure, axes = _grid(table)
    values = table.to_numpy(float)
    top = max(np.nanmax(np.abs(values), initial=0), EFFECT)
    norm = TwoSlopeNorm(0, -top, top) if diverging else Normalize(0, top)
    colors = colormaps["BrBG" if diverging else "Oranges"]
    axes.pcolormesh(values, cmap=colors, norm=norm, edgecolor=LIGHT["ground"], lw=1.5)
    form = "+.3f" if diverging else ".1%"
    for (row, column), value in np.ndenumerate(values):
        star = "*" if found is not None and found.iloc[row, column] else ""
        # Not a colour of the theme: the cell keeps its background on a dark page.
        ink = LIGHT["muted"] if math.isnan(value) else _ink_on(colors(norm(value)))
        middle: Any = {"ha": "center", "va": "center", "color": ink}
        axes.text(column + 0.5, row + 0.5, number(value, form) + star, **middle)
    listed = "; ".join(
        f"{name} {', '.join(number(value, form) for value in row)}"
        for name, row in zip(table.index, values, strict=True)
    )
    settings = ", ".join(str(column) for column in table.columns)
    return Chart(figure, f"{what} in settings {settings}: {listed}.")


def _grid(table: pd.DataFrame) -> tuple[Figure, Axes]:
    """Axes with one cell of the same size per number, and names above and to the left."""
    names = [short(str(name)) for name in table.index]
    left_in, cell_in = label_width_in(names), 0.6
    width = max(WIDTH_IN, left_in + cell_in * table.shape[1] + 0.1)
    height = 0.5 + 0.24 * len(table)
    figure = Figure(figsize=(width, height))
    box = (left_in / width, 0.05 / height, 1 - (left_in + 0.1) / width, 1 - 0.45 / height)
    axes = figure.add_axes(box)
    axes.set_xticks(np.arange(table.shape[1]) + 0.5, [f"setting {c}" for c in table.columns])
    axes.set_yticks(np.arange(len(names)) + 0.5, names, va="center")
    axes.tick_params(length=0, labelcolor=LIGHT["ink"], top=True, labeltop=True)
    axes.tick_params(bottom=False, labelbottom=False)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    return figure, axes


def _ink_on(color: Sequence[float]) -> str:
    """Black or white, whichever has more contrast on a colour (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return "#000000" if luminance > 0.179 else "#fefefe"


def gates(shares: np.ndarray, activation: str, seed: int) -> Chart:
    """Share of open gates of every unit over the epochs; dead units in their own colour.

    Args:
        shares: `[E, D]`, from `gate_open.npy` of a run folder.
        activation, seed: of the run.
    """
    epochs, units = shares.shape
    order = np.lexsort((shares.mean(0), shares[-1]))
    # Evenly spaced in sorted order, so each colour keeps its share of the height.
    shown = order[np.linspace(0, units - 1, min(units, UNITS_SHOWN)).round().astype(int)]
    figure = Figure(figsize=(1.65, 1.85))
    axes = figure.add_axes((0.19, 0.25, 0.76, 0.63))
    axes.imshow(
        np.ma.masked_equal(shares[:, shown].T, 0),
        aspect="auto",
        interpolation="none",
        origin="lower",
        norm=Normalize(0, 1),
        cmap=colormaps["cividis"].with_extremes(bad=LIGHT["dead"]),
        extent=(0.5, epochs + 0.5, 0, 1),
    )
    axes.set_yticks([])
    axes.set_title(f"{short(activation)}, seed {seed}", color=LIGHT["ink"], x=-0.18)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel="epoch", ylabel=f"{units} units")
    dead = (shares == 0).sum(1)
    return Chart(
        figure,
        f"Gates of {activation}, seed {seed}: {dead[0]} of {units} units closed on every image "
        f"after epoch 1, {dead[-1]} after epoch {epochs}; the median unit was then open on "
        f"{np.median(shares[-1]):.0%} of the images.",
    )
