"""Figures of a comparison that show one number per run, activation or unit.

Each function returns a matplotlib figure in the light colours of `theme` and its text alternative.
Call them within `matplotlib.rc_context(theme.RC)`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fluoroscope.escaping import figure_text
from fluoroscope.reporting.columns import number
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


def scatter(by_run: pd.DataFrame, looks: Mapping[str, Style]) -> Chart:
    """Dead share of the last validation against test AUROC, one dot per run.

    Args:
        by_run: from a `SettingTable`.
    """
    dots = by_run[["activation", "dead", "auroc"]].dropna()
    columns, rows = _legend_size([name for name, look in looks.items() if look.highlighted])
    figure, axes = panel(2.3 + 0.2 * rows, 0.68, top_in=0.1 + 0.2 * rows)
    for name, group in dots.groupby("activation", sort=False):
        look = looks[str(name)]
        style: Any = {"mec": look.color, "mfc": "none", "ms": 4.5, "mew": 1.1, "ls": "none"}
        label = short(str(name)) if look.highlighted else None
        z = 3 if look.highlighted else 2
        axes.plot(group["dead"], group["auroc"], look.marker, label=label, zorder=z, **style)
    rest = next((look for look in looks.values() if not look.highlighted), None)
    _legend(axes, rest, columns)
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


def _legend_size(names: Sequence[str]) -> tuple[int, int]:
    """Columns and rows of a legend of these names and of one entry for all others."""
    longest = label_width_in(names) + 0.25
    columns = max(1, min(3, int((WIDTH_IN + 0.1) / longest)))
    return columns, -(-(len(names) + 1) // columns)


def _legend(axes: Axes, rest: Style | None, columns: int) -> None:
    """A legend above the axes, with one entry for all activations that are not highlighted."""
    if rest is not None:
        style: Any = {"mec": rest.color, "mfc": "none", "ms": 4.5, "ls": "none"}
        axes.plot([], [], rest.marker, label="others", **style)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.2, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.1,
        columnspacing=0.9,
        borderaxespad=0.2,
    )


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
    axes = figure.add_axes((0.19, 0.2, 0.76, 0.68))
    axes.set_axis_off()  # texts are drawn four times as fast as the axes' own
    axes.imshow(
        np.ma.masked_equal(shares[:, shown].T, 0),
        aspect="auto",
        interpolation="none",
        origin="lower",
        norm=Normalize(0, 1),
        cmap=colormaps["cividis"].with_extremes(bad=LIGHT["dead"]),
        extent=(0.5, epochs + 0.5, 0, 1),
    )
    small: Any = {"fontsize": 7.5, "color": LIGHT["muted"], "ha": "center", "va": "center"}
    figure.text(0.19, 0.94, f"{short(activation)}, seed {seed}", fontsize=8.5, ha="left")
    figure.text(0.1, 0.54, f"{units} units", rotation=90, **small)
    figure.text(0.57, 0.1, f"epochs 1 to {epochs}", **small)
    dead = (shares == 0).sum(1)
    return Chart(
        figure,
        f"Gates of {activation}, seed {seed}: {dead[0]} of {units} units closed on every image "
        f"after epoch 1, {dead[-1]} after epoch {epochs}; the median unit was then open on "
        f"{np.median(shares[-1]):.0%} of the images.",
    )
