"""What W&B draws of a group of runs: which logged keys, against what, in which section.

A curve is the mean over the runs of a group, in a band from the smallest to the largest.
"""

from dataclasses import dataclass, field
from typing import Any

import wandb_workspaces.reports.v2 as wr

EPOCH, STEP, SECONDS = "epoch", "trainer/global_step", "RelativeTime(Process)"
# A panel shows that many groups and no more; W&B's own 10 would hide some of the activations.
MAX_GROUPS = 100
# From 0 to 1, for curves with a point every few steps; those with a point an epoch have none.
SMOOTHING = 0.5


@dataclass(frozen=True)
class Curves:
    """Logged keys over the course of a run."""

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
    """One number a run, as its summary holds it."""

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
    """A point a run: two numbers of its summary."""

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


def _units(title: str, *names: str, window: str = "val", y: str = "share of units") -> Curves:
    return Curves(title, tuple(f"units/{window}/{name}" for name in names), y=y, low=0)


def _norm(title: str, *names: str) -> Curves:
    return Curves(title, tuple(f"grad/{name}" for name in names), x=STEP, y="L2 norm", log=True)


OUTCOME: list[Panel] = [
    Bars("Test AUROC", ("test/auroc",)),
    Curves("Validation AUROC", ("val/auroc",)),
    Points("Test AUROC against dead units", "units/val/dead_frac.last", "test/auroc"),
    Bars("Best validation AUROC", ("val/auroc.max",)),
    Curves("Validation AUPRC", ("val/auprc",)),
    Bars("Test sensitivity and specificity", ("test/sensitivity", "test/specificity")),
    Curves("Training loss", ("train/loss",), x=STEP),
    Curves("Validation loss", ("val/loss",)),
    Curves("Validation Brier score", ("val/brier",), low=0),
]
UNITS: list[Panel] = [
    _units("Dead units", "dead_frac"),
    _units("Linear units", "linear_frac"),
    _units("Nonlinear units", "nonlinear_frac"),
    Curves(
        "Blackout: images that close every gate",
        ("units/val/blackout_frac", "units/train/blackout_frac"),
        y="share of images",
        low=0,
    ),
    _units("Dead units, training", "dead_frac", window="train"),
    _units("Units that died and that revived", "newly_dead_frac", "revived_frac"),
    _units("Open gates", "gate_open_frac", y="share of image-unit pairs"),
    _units("Activations of zero", "zero_frac", y="share of image-unit pairs"),
    _units(
        "Units open on 1 to 7 images; share that passes for dead", "rare_frac", "dead_bound_frac"
    ),
    _units("Dead ReLU units by the features' geometry alone", "dead_expected_frac"),
    _units("What features have in common (gamma)", "feature_gamma", y="gamma"),
    _units("Dormant units (Sokar et al.)", "dormant_frac_0025", "dormant_frac_01"),
    _units("Effective rank of the activations", "effective_rank", y="directions"),
    _units("Largest gain of batch norm", "bn_tail_gain_max", y="gain"),
]
GRADIENTS: list[Panel] = [
    Curves("Images that send no gradient", ("grad/features_zero_frac",), y="share", low=0),
    Curves("Units without gradient in an epoch", ("grad/starved_frac",), y="share", low=0),
    _norm("Gradient that reaches the backbone", "features_l2"),
    Curves(
        "What the gates let through", ("grad/gate_transmission",), x=STEP, y="norm, with / without"
    ),
    Curves("What the gates turn", ("grad/gate_cosine",), x=STEP, y="cosine, with and without"),
    Curves("Step over weight, head.dense", ("grad/update_ratio",), x=STEP, log=True),
    _norm("Gradient of head.dense", "l2/head_dense"),
    _norm("Gradient of the norm", "l2/head_norm"),
    _norm("Gradient of head.out", "l2/head_out"),
    _norm("Gradient of the head", "l2/head"),
    _norm("Gradient of the backbone", "l2/backbone"),
    _norm("Whole gradient, before and after clipping", "l2/total", "l2/total_clipped"),
]
SPEED: list[Panel] = [
    Curves("Validation AUROC against time", ("val/auroc",), x=SECONDS),
    Curves("Optimizer steps against time", (STEP,), x=SECONDS, low=0),
    Bars("Seconds in all", (SECONDS,)),
    Bars("Seconds of the fit", ("result.fit_s",)),
]
SECTIONS = {"Outcome": OUTCOME, "Head units": UNITS, "Gradients": GRADIENTS, "Speed": SPEED}
