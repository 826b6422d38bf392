"""The picture of every unit's gate over the epochs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

DEAD = "#D55E00"


def draw(shares: np.ndarray, window: str = "epoch", samples: str = "validation images") -> Any:
    """Plot gate-open shares `[E, D]`: epochs on the x axis, units sorted by their last share.

    Dead units, with a share of exactly 0, are orange.

    Args:
        window, samples: what the picture calls a row of `shares`, and what the shares are of.
    """
    # Imported here, since it takes 0.4 s.
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots(gridspec_kw={"left": 0.11, "right": 1.0, "bottom": 0.11, "top": 0.92})
    order = np.lexsort((shares.mean(0), shares[-1]))
    image = axes.imshow(
        np.ma.masked_equal(shares[:, order].T, 0),
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        vmin=0,
        vmax=1,
        cmap=colormaps["cividis"].with_extremes(bad=DEAD),
        extent=(0.5, len(shares) + 0.5, 0, shares.shape[1]),
    )
    figure.colorbar(image, label=f"share of {samples} with an open gate")
    dead = (shares == 0).sum(1)
    title = f"dead units (orange): {dead[0]} after the first {window}, {dead[-1]} after the last"
    axes.set_title(title)
    axes.set(xlabel=window, ylabel="units, sorted by their last share")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_layers(shares: Mapping[str, np.ndarray], columns: int = 200) -> Any:
    """Plot the gate-open shares `[C]` of each layer as a row, its units sorted; the first on top.

    Dead units, with a share of exactly 0, are orange. Every row is as long as the others: it shows
    at most `columns` units, at equal steps, and all of its dead ones have their part of the row.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    found = {name: sorted_shares(share, columns) for name, share in shares.items()}
    names = [name for name, row in found.items() if not np.isnan(row).all()]
    rows = [found[name] for name in names]
    picture = np.stack(rows) if rows else np.ones((1, columns))
    figure = Figure(figsize=(8, max(2.6, 1.2 + 0.16 * len(picture))), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        np.ma.masked_equal(picture, 0),
        aspect="auto",
        interpolation="nearest",
        vmin=0,
        vmax=1,
        cmap=colormaps["cividis"].with_extremes(bad=DEAD),
        extent=(0, 100, len(picture) - 0.5, -0.5),
    )
    figure.colorbar(image, label="samples with an open gate")
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set(xlabel="units of the layer, sorted, in percent", title="dead units (orange) by layer")
    return figure


def sorted_shares(shares: np.ndarray, count: int) -> np.ndarray:
    """`count` of the sorted shares `[C]` at equal steps, without NaN; NaN alone if all are."""
    known = np.sort(shares[~np.isnan(shares)])
    if not len(known):
        return np.full(count, np.nan)
    steps = (np.arange(count) + 0.5) / count
    return np.asarray(known[(steps * len(known)).astype(int)])
