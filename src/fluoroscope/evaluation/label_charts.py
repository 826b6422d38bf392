"""The curves of one label: ROC, precision and recall, scores, reliability, decision curve.

Each function returns a matplotlib figure in the light colours of `theme` and its text alternative.
Call them within `matplotlib.rc_context(theme.RC)`. Arrays: N images of known truth.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from fluoroscope.evaluation.wording import Values, estimate, known, number, point_name
from fluoroscope.reporting.charts import WIDTH_IN, Chart, panel
from fluoroscope.reporting.theme import LIGHT

Floats = NDArray[np.float64]
MOST = 240  # vertices of a curve: more cannot be seen
BINS = 20
MARKERS = ("o", "^", "v", "s", "D", "P", "X", "*")
CHANCE: Any = {"color": LIGHT["muted"], "ls": (0, (4, 3)), "lw": 0.9, "zorder": 1}
CURVE: Any = {"color": LIGHT["blue"], "lw": 1.7}
BAND: Any = {"color": LIGHT["blue"], "alpha": 0.18, "lw": 0}
MARK: Any = {"color": LIGHT["ink"], "mfc": LIGHT["ground"], "ms": 5, "mew": 1.1, "lw": 0.9}


def roc(score: Floats, truth: Floats, label: Values) -> Chart:
    """Sensitivity against 1 - specificity; the operating points with both intervals.

    Args:
        score, truth: [N].
        label: of `evaluation.json`.
    """
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(truth, score)
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], **CHANCE)
    axes.plot(*_thinned(false, true), **CURVE)
    for marker, (name, point) in zip(cycle(MARKERS), label["points"].items(), strict=False):
        hit, passed = (_ends(point[key]) for key in ("sensitivity", "specificity"))
        if not np.isnan([hit[0], passed[0]]).any():
            x, y, sides = 1 - passed[0], hit[0], ([passed[2]], [passed[1]])
            style = {"marker": marker, "ls": "none", "label": point_name(name), **MARK}
            axes.errorbar(x, y, yerr=([hit[1]], [hit[2]]), xerr=sides, elinewidth=0.8, **style)
    if axes.get_legend_handles_labels()[1]:
        _legend(axes, "lower right")
    axes.set(xlabel="1 − specificity (false alarms)", ylabel="sensitivity")
    told = "".join(
        f"; {point_name(name)}: sensitivity {estimate(point['sensitivity'])}, specificity "
        f"{estimate(point['specificity'])}"
        for name, point in label["points"].items()
    )
    return Chart(figure, f"ROC curve: AUROC {estimate(label['auroc'])}{told}.")


def precision_recall(score: Floats, truth: Floats, label: Values) -> Chart:
    """Precision (PPV) against recall (sensitivity), with the prevalence as the line of chance."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, score)
    prevalence = float(np.mean(truth))
    figure, axes = _square()
    axes.axhline(prevalence, **CHANCE)
    axes.plot(*_thinned(recall[::-1], precision[::-1]), drawstyle="steps-pre", **CURVE)
    axes.set(xlabel="sensitivity (recall)", ylabel="positive predictive value (precision)")
    alt = f"Precision and recall: AUPRC {estimate(label['auprc'])}; chance is {prevalence:.3f}."
    return Chart(figure, alt)


def scores(score: Floats, truth: Floats, label: Values) -> Chart:
    """Histogram of the probability of images with and without the finding, and the thresholds."""
    figure, axes = panel(2.5, 0.62, top_in=0.42)
    edges = np.linspace(0, 1, BINS + 1).tolist()
    kinds: list[tuple[int, str, dict[str, Any]]] = [
        (0, "without", {"histtype": "stepfilled", "fc": LIGHT["line"], "ec": LIGHT["rest"]}),
        (1, "with", {"histtype": "step", "ec": LIGHT["blue"], "lw": 1.5, "hatch": "/////"}),
    ]
    told = []
    for kind, name, style in kinds:
        own = score[truth == kind]
        weights = np.full(len(own), 1 / max(1, len(own)))
        axes.hist(own, edges, weights=weights, label=f"{name} the finding", **style)
        low, middle, high = np.quantile(own, (0.25, 0.5, 0.75)) if len(own) else [np.nan] * 3
        told.append(f"{name} the finding: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}")
    for marker, point in zip(cycle(MARKERS), label["points"].values(), strict=False):
        place = known(point["threshold"])
        axes.plot(place, 1, marker, transform=axes.get_xaxis_transform(), clip_on=False, **MARK)
        axes.axvline(place, color=LIGHT["muted"], lw=0.6, zorder=1)
    axes.set(xlim=(0, 1), xlabel="probability", ylabel="share of the images")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _legend_above(axes)
    cuts = [f"{point_name(n)} {p['threshold']:.3g}" for n, p in label["points"].items() if _cut(p)]
    thresholds = f" Thresholds: {', '.join(cuts)}." if cuts else ""
    return Chart(figure, f"Probabilities of images {'; '.join(told)}.{thresholds}")


def reliability(label: Values) -> Chart:
    """Observed against predicted share, before and after calibration, and the images per bin."""
    figure = Figure(figsize=(WIDTH_IN, 3.3))
    axes = figure.add_axes((0.18, 0.32, 0.78, 0.58))
    strip = figure.add_axes((0.18, 0.125, 0.78, 0.13))
    axes.plot([0, 1], [0, 1], **CHANCE)
    before: Any = {"marker": "o", "ls": ":", "color": LIGHT["rest"], "mfc": LIGHT["ground"]}
    after: Any = {"marker": "s", "ls": "-", "color": LIGHT["blue"]}
    drawn = [("uncalibrated", label["before"], before), ("calibrated", label["after"], after)]
    told = []
    for name, quality, style in drawn:
        if quality is None:
            continue
        bins = [part for part in quality["reliability"] if part["images"]]
        _draw_bins(axes, bins, name, style)
        counts = ", ".join(
            f"{part['predicted']:.2f} predicted, {estimate(part['observed'], '.2f')} observed in "
            f"{part['images']}"
            for part in bins
        )
        told.append(f"{name}, ECE {estimate(quality['ece'])}: {counts}")
    shown = label["after"] or label["before"]
    _draw_counts(strip, shown["reliability"])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed share")
    axes.set_xticks(np.linspace(0, 1, 6), [""] * 6)
    axes.grid()
    _legend_above(axes)
    return Chart(figure, f"Reliability {'; '.join(told)} images.")


def decision_curve(label: Values, prevalence: float | None) -> Chart:
    """Net benefit of the model against that of calling all or no images positive.

    Args:
        prevalence: the given one; None: that of the images.
    """
    curve = label["decision_curve"]
    figure, axes = panel(2.5, 0.7, top_in=0.42)
    threshold = np.array([part["threshold"] for part in curve])
    value, low, high = (_column(curve, key) for key in ("value", "low", "high"))
    every = np.array([part["all"] for part in curve])
    axes.axhline(0, **CHANCE, label="none positive")
    axes.plot(threshold, every, "-.", color=LIGHT["dead"], lw=1.2, label="all positive")
    axes.fill_between(threshold, low, high, **BAND)
    axes.plot(threshold, value, label="model", **CURVE)
    top = float(np.nanmax([value.max(), every.max(), 1e-3]))
    axes.set(xlim=(0, 1), ylim=(-0.35 * top, 1.1 * top), ylabel="net benefit")
    axes.set_xlabel("threshold on the probability")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _legend_above(axes)
    at = [int(np.argmin(np.abs(threshold - place))) for place in (0.1, 0.25, 0.5, 0.75)]
    told = "; ".join(
        f"at {threshold[i]:.2f} {estimate(curve[i]['net_benefit'])}, all positive "
        f"{number(every[i])}"
        for i in dict.fromkeys(at)
    )
    of = "of the images" if prevalence is None else f"of {prevalence:g}"
    return Chart(figure, f"Net benefit at the prevalence {of}: {told}.")


def _column(curve: Sequence[Values], key: str) -> Floats:
    return np.array([known(part["net_benefit"][key]) for part in curve])


def _cut(point: Values) -> bool:
    return point["threshold"] is not None


def _ends(values: Values) -> tuple[float, float, float]:
    """A value and how far its interval reaches below and above it; 0 without an interval."""
    value, low, high = (known(values[key]) for key in ("value", "low", "high"))
    if np.isnan(low):
        return value, 0.0, 0.0
    return value, max(0.0, value - low), max(0.0, high - value)


def _square() -> tuple[Figure, Axes]:
    """Axes from 0 to 1 of equal sides."""
    figure, axes = panel(3.3, 0.52)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.2))
    axes.grid()
    return figure, axes


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most `MOST` vertices of a curve, evenly spaced along it, with both ends."""
    if len(x) <= MOST:
        return x, y
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], MOST)))
    kept = np.unique([0, *kept.clip(max=len(x) - 1), len(x) - 1])
    return x[kept], y[kept]


def _draw_bins(axes: Axes, bins: Sequence[Values], name: str, style: Mapping[str, Any]) -> None:
    x = [part["predicted"] for part in bins]
    ends = np.array([_ends(part["observed"]) for part in bins]).reshape(-1, 3)
    axes.errorbar(x, ends[:, 0], yerr=ends[:, 1:].T, label=name, ms=4, lw=1, **style)


def _draw_counts(axes: Axes, bins: Sequence[Values]) -> None:
    """Bars of the images per bin; their scale needs no numbers, which the table has."""
    left, width = ([part[key] for part in bins] for key in ("low", "high"))
    sizes = np.subtract(width, left)
    count = [part["images"] for part in bins]
    axes.bar(left, count, sizes, align="edge", fc=LIGHT["line"], ec=LIGHT["rest"], lw=0.6)
    axes.set(xlim=(-0.02, 1.02), xlabel="predicted probability; bars: images")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MultipleLocator(0.2))


def _legend(axes: Axes, place: Any) -> None:
    frame: Any = {"facecolor": LIGHT["ground"], "edgecolor": "none", "framealpha": 0.8}
    axes.legend(loc=place, fontsize=7.5, handletextpad=0.3, borderaxespad=0.3, **frame)


def _legend_above(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.03),
        ncols=3,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.4,
        columnspacing=1.1,
        borderaxespad=0.2,
    )
