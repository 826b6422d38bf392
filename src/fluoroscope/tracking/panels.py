"""The panels of the W&B workspace: each metric of `diagnostics.keys`, scores, loss and speed.

A curve is the mean over a group of runs, inside a band from the smallest to the largest value.
"""

from dataclasses import dataclass, field
from typing import Any

import wandb_workspaces.reports.v2 as wr

from fluoroscope.diagnostics import keys
from fluoroscope.diagnostics.keys import BLACKOUT, DEAD, METRICS, Metric, Window

EPOCH, STEP, SECONDS = "epoch", "trainer/global_step", "RelativeTime(Process)"
# Most groups that a panel shows; W&B's own limit of 10 would hide some activations.
MAX_GROUPS = 100
# From 0 to 1, for keys logged every few steps; keys logged once per epoch are not smoothed.
SMOOTHING = 0.5


@dataclass(frozen=True)
class Curves:
    """Logged keys during a run, as lines."""

    title: str
    keys: tuple[str, ...]
    x: str = EPOCH
    y: str = ""
    log: bool = False
    low: float | None = None

    def draw(self, group_by: str) -> Any:
        smooth = self.x == STEP
        return wr.LinePlot(
            title=self.title,
            x=self.x,
            y=list(self.keys),
            title_x={EPOCH: "epoch", STEP: "optimizer step", SECONDS: "seconds"}[self.x],
            title_y=self.y,
            range_y=(self.low, None),
            log_y=self.log,
            smoothing_type="exponentialTimeWeighted" if smooth else "none",
            smoothing_factor=SMOOTHING if smooth else 0,
            max_runs_to_show=MAX_GROUPS,
            **_grouped(group_by),
        )


@dataclass(frozen=True)
class Bars:
    """One number per run, from its summary, as bars."""

    title: str
    keys: tuple[str, ...]

    def draw(self, group_by: str) -> Any:
        return wr.BarPlot(
            title=self.title,
            metrics=list(self.keys),
            max_runs_to_show=MAX_GROUPS,
            max_bars_to_show=MAX_GROUPS,
            **_grouped(group_by),
        )


@dataclass(frozen=True)
class Points:
    """One point per run: two numbers from its summary."""

    title: str
    x: str
    y: str
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", (self.x, self.y))

    def draw(self, group_by: str) -> Any:
        x, y = wr.SummaryMetric(self.x), wr.SummaryMetric(self.y)
        return wr.ScatterPlot(title=self.title, x=x, y=y)


Panel = Curves | Bars | Points


def _grouped(group_by: str) -> dict[str, Any]:
    key = wr.Config(group_by)
    return {"groupby": key, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}


def _panel(title: str, window: Window, *metrics: Metric) -> Curves:
    """The curves of metrics that share a panel; all are taken at the same instants."""
    first = metrics[0]
    lines = tuple(metric.key(window) for metric in metrics)
    if first.when == "window":
        return Curves(title, lines, EPOCH, first.measure, low=0)
    return Curves(title, lines, STEP, first.measure, log=first.form in (keys.NORM, keys.STEP_RATIO))


def _panels(section: str) -> list[Panel]:
    """One panel for each title in the table of the metrics, in its order."""
    titles = dict.fromkeys(m.panel for m in METRICS if m.section == section)
    return [_panel(title, "val", *(m for m in METRICS if m.panel == title)) for title in titles]


OUTCOME: list[Panel] = [
    Bars("Test AUROC", ("test/auroc",)),
    Curves("Validation AUROC", ("val/auroc",)),
    Points("Test AUROC and dead units", f"{DEAD.key()}.last", "test/auroc"),
    Bars("Best validation AUROC", ("val/auroc.max",)),
    Curves("Validation AUPRC", ("val/auprc",)),
    Bars("Test sensitivity and specificity", ("test/sensitivity", "test/specificity")),
    Curves("Training loss", ("train/loss",), x=STEP),
    Curves("Validation loss", ("val/loss",)),
    Curves("Validation Brier score", ("val/brier",), low=0),
]
UNITS: list[Panel] = [
    *_panels(keys.UNITS),
    _panel("Dead units, training", "train", DEAD),
    _panel("Blackout, training", "train", BLACKOUT),
]
SPEED: list[Panel] = [
    Curves("Validation AUROC over time", ("val/auroc",), x=SECONDS),
    Curves("Optimizer steps over time", (STEP,), x=SECONDS, low=0),
    Bars("Seconds of the whole run", (SECONDS,)),
    Bars("Seconds of training", ("result.fit_s",)),
]
SECTIONS = {
    "Outcome": OUTCOME,
    "Head units": UNITS,
    "Gradients": _panels(keys.GRAD),
    "Speed": SPEED,
}
