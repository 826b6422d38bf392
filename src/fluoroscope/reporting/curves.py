"""Curves over the epochs: one line per activation, with the spread of its seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fluoroscope.diagnostics import keys
from fluoroscope.reporting.charts import PERCENT, Chart, label_width_in, panel, short
from fluoroscope.reporting.collect import Run
from fluoroscope.reporting.theme import LIGHT, Style

HEIGHT_IN = 2.45
LINE_FRAC = 0.066  # height of a label's line, as a share of the height of the axes


class Curve(NamedTuple):
    """A logged key and how it is drawn."""

    key: str
    title: str
    form: str = ".3f"
    log: bool = False

    @property
    def name(self) -> str:
        """Part of the names of its files."""
        return self.key.replace("/", "-").replace("_", "-")


GRADIENTS = (keys.L2_HEAD, keys.L2_BACKBONE, keys.FEATURES_L2)
CURVES = (
    Curve("val/auroc", "Validation AUROC"),
    Curve("val/loss", "Validation loss"),
    Curve("train/loss", "Training loss"),
    *(Curve(m.key(), m.panel, m.form) for m in (keys.DEAD, keys.LINEAR)),
    *(Curve(m.key(), m.panel, m.form, log=True) for m in GRADIENTS),
)


def histories(runs: Sequence[Run]) -> pd.DataFrame:
    """The logged values of `CURVES`, averaged over the log calls of an epoch and over folds.

    Returns:
        One row per activation, seed and epoch (from 1), one column per key; NaN if not logged.
    """
    columns = [curve.key for curve in CURVES]
    parts = [
        run.metrics.reindex(columns=["epoch", *columns]).assign(activation=run.row, seed=run.seed)
        for run in runs
    ]
    table = pd.concat(parts, ignore_index=True)
    table["epoch"] = table["epoch"] + 1
    return table.groupby(["activation", "seed", "epoch"], sort=True)[columns].mean()


def draw_curve(history: pd.DataFrame, curve: Curve, looks: Mapping[str, Style]) -> Chart | None:
    """Draw the mean over seeds, and for highlighted activations one standard deviation around it.

    Args:
        history: from `histories`.

    Returns:
        None if no run logged the key. Infinite values, and zeros on a logarithmic scale, are left
        out.
    """
    values = history[curve.key].dropna()
    values = values[np.isfinite(values) & ((values > 0) | (not curve.log))]
    if values.empty:
        return None
    by_epoch = values.groupby(["activation", "epoch"])
    means, spreads = by_epoch.mean().unstack("epoch"), by_epoch.std().unstack("epoch")
    figure, axes = panel(HEIGHT_IN, 0.52, label_width_in(list(means.index)) + 0.1)
    # Highlighted lines are drawn last, so they lie on top.
    for name in sorted(means.index, key=lambda n: looks[n].highlighted):
        _line(axes, means.loc[name], spreads.loc[name], looks[name])
    _dress(axes, curve, means.columns)
    _label_ends(axes, {name: means.loc[name].dropna() for name in means.index}, looks)
    ends = ", ".join(
        f"{name} {means.loc[name].dropna().iloc[-1]:{curve.form}}" for name in means.index
    )
    epochs = f"epochs 1 to {means.columns[-1]:.0f}"
    return Chart(figure, f"{curve.title}, {epochs}, means over seeds at the end: {ends}.")


def _line(axes: Axes, mean: pd.Series, spread: pd.Series, look: Style) -> None:
    z = 3 if look.highlighted else 2
    marker = look.marker if mean.notna().sum() == 1 else None
    axes.plot(
        mean.index, mean, color=look.color, ls=look.dash, lw=look.width, marker=marker, zorder=z
    )
    if look.highlighted:
        low, high = mean - spread, mean + spread
        axes.fill_between(mean.index, low, high, color=look.color, alpha=0.16, lw=0, zorder=z - 2)


def _dress(axes: Axes, curve: Curve, epochs: pd.Index) -> None:
    axes.set_xlim(epochs[0], max(epochs[-1], epochs[0] + 1))
    if curve.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        few = LogLocator(subs=(1, 2, 5)) if high > 8 * low else MaxNLocator(5)
        axes.yaxis.set_major_locator(few)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    if curve.form.endswith("%"):
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epoch")


def _label_ends(axes: Axes, lines: Mapping[str, pd.Series], looks: Mapping[str, Style]) -> None:
    """Write each line's name beside its end; labels that would overlap move apart."""
    names = list(lines)
    ends = [(lines[name].index[-1], lines[name].iloc[-1]) for name in names]
    places = axes.transAxes.inverted().transform(axes.transData.transform(ends))
    heights = spread_out(places[:, 1], min(LINE_FRAC, 1.1 / len(names)))
    for name, (x, y), height in zip(names, places, heights, strict=True):
        look = looks[name]
        color = look.color if look.highlighted else LIGHT["muted"]
        axes.plot(
            [x, 1.035, 1.06],
            [y, height, height],
            transform=axes.transAxes,
            color=look.color,
            lw=0.5,
            clip_on=False,
        )
        axes.text(
            1.075,
            height,
            short(name),
            transform=axes.transAxes,
            va="center",
            fontsize=7.5,
            color=color,
            weight="bold" if look.highlighted else "normal",
        )


def spread_out(wanted: Sequence[float] | np.ndarray, gap: float) -> np.ndarray:
    """Positions at least `gap` apart, in the same order, near the wanted ones and about [0, 1].

    >>> spread_out([0.5, 0.5, 0.1], 0.2).round(2).tolist()
    [0.5, 0.7, 0.1]
    """
    order = np.argsort(wanted, kind="stable")
    steps = np.arange(len(order)) * gap
    # Each is pushed up by those below it; then all are pushed back below the top.
    raised = np.maximum.accumulate(np.asarray(wanted)[order] - steps) + steps
    top = 1 + max(0, steps[-1] - 1) / 2
    places = np.empty(len(order))
    places[order] = np.minimum(raised, (top - steps)[::-1])
    return places
