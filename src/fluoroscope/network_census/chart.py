"""The units of all layers by depth: their kinds, and the shares of open gates."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fluoroscope.diagnostics.gate_picture import sorted_shares
from fluoroscope.network_census.counting import Counted
from fluoroscope.reporting.charts import PERCENT, Chart
from fluoroscope.reporting.theme import LIGHT

WIDTH_IN, HEIGHT_IN = 7.4, 4.6
ROWS = 200  # of the heat map: units of a layer in sorted order, at equal steps
KINDS = {"dead": LIGHT["dead"], "linear": LIGHT["blue"], "nonlinear": LIGHT["line"]}


def by_depth(counted: Counted) -> Chart:
    """Above the share of dead, linear and other units of each layer, below all their gates."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
    box: Any = {"left": 0.085, "right": 0.99, "top": 0.93, "bottom": 0.1, "hspace": 0.12}
    kinds, gates = figure.subplots(2, 1, sharex=True, gridspec_kw={**box, "height_ratios": (2, 3)})
    _draw_kinds(kinds, counted)
    _draw_gates(gates, counted)
    gates.xaxis.set_major_locator(MaxNLocator(integer=True))
    gates.set_xlabel("layer, from the input to the output")
    layers = counted.layers
    most_dead, most_linear = (
        layers.iloc[int(layers[f"{kind}_frac"].argmax())] for kind in ("dead", "linear")
    )
    return Chart(
        figure,
        f"{len(layers)} layers by depth. Most dead: layer {most_dead['depth']}, "
        f"{most_dead['dead_frac']:.1%} of its units; most linear: layer {most_linear['depth']}, "
        f"{most_linear['linear_frac']:.1%}. The table of all layers holds the numbers.",
    )


def _draw_kinds(axes: Axes, counted: Counted) -> None:
    layers, bottom = counted.layers, np.zeros(len(counted.layers))
    for kind, color in KINDS.items():
        shares = layers[f"{kind}_frac"].to_numpy(float)
        axes.bar(layers["depth"], shares, 1.0, bottom, color=color, label=kind, linewidth=0)
        bottom += np.nan_to_num(shares)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=3, frameon=False, fontsize=8)
    axes.set(ylim=(0, 1), ylabel="units", xlim=(0.5, len(layers) + 0.5))
    axes.yaxis.set_major_formatter(PERCENT)


def _draw_gates(axes: Axes, counted: Counted) -> None:
    columns = [
        sorted_shares(group.to_numpy(float), ROWS)
        for _, group in counted.units.groupby("depth")["gate_open_share"]
    ]
    axes.imshow(
        np.ma.masked_equal(np.stack(columns, axis=1), 0),
        aspect="auto",
        interpolation="none",
        origin="lower",
        vmin=0,
        vmax=1,
        cmap=colormaps["cividis"].with_extremes(bad=LIGHT["dead"]),
        extent=(0.5, len(columns) + 0.5, 0, 1),
    )
    axes.set(ylabel="units, sorted by their open gates")
    axes.yaxis.set_major_formatter(PERCENT)
