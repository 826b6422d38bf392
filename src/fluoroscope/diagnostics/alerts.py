"""Alerts on blackouts, dying units and a vanishing gradient in the head."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from fluoroscope.diagnostics.head_metrics import ClosedWindow
from fluoroscope.diagnostics.keys import Window
from fluoroscope.diagnostics.media import log_alert
from fluoroscope.diagnostics.monitor import HeadListener

CALMER = "lower optimizer.lr, raise optimizer.warmup_frac"
OPENER = "head.bias_init=0.1 or centered, head.order=norm-activation, head.activation=leaky_relu"
IMAGES = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Alert:
    """A title of fewer than 64 characters, W&B's limit, and one sentence."""

    title: str
    text: str


class Rules:
    """Turns the monitor's numbers into alerts: one when a condition starts, none while it lasts.

    A condition that holds in both windows gives one alert. A number that is NaN was not measured
    and gives none. None switches a rule off.

    Args:
        blackout_frac: alerts if every unit is closed on more than this share of the validation
            images.
        dead_jump_frac: alerts if the dead share rose by more than this since the previous window.
        vanishing_ratio: alerts if the gradient norm of `head.dense` divided by that of `head.out`
            is below this, or exactly zero.
    """

    def __init__(
        self,
        blackout_frac: float | None = 0.0,
        dead_jump_frac: float | None = 0.1,
        vanishing_ratio: float | None = 1e-2,
    ) -> None:
        self.blackout_frac = blackout_frac
        self.dead_jump_frac = dead_jump_frac
        self.vanishing_ratio = vanishing_ratio
        self.active: set[str] = set()
        self.dead_before: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """State that keeps a resumed run from repeating an alert."""
        return {"active": sorted(self.active), "dead_before": dict(self.dead_before)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.active, self.dead_before = set(state["active"]), dict(state["dead_before"])

    def window(self, name: Window, values: Mapping[str, float], where: str) -> list[Alert]:
        """Alerts of a census window that was just closed.

        Args:
            values: numbers by metric key.
            where: time in training for the sentence, such as `epoch 3, step 120`.
        """
        alerts = list(self._dead_jump(name, values.get(f"units/{name}/dead_frac"), where))
        if name == "val":
            alerts += self._blackout(values.get("units/val/blackout_frac"), where)
        return alerts

    def step(self, values: Mapping[str, float], where: str) -> list[Alert]:
        """Alerts of a logged optimizer step; arguments as in `window`."""
        dense, out = (values.get(f"grad/l2/head_{part}", math.nan) for part in ("dense", "out"))
        # If head.out has no gradient either, as in a batch without known labels, none was lost.
        measured = math.isfinite(dense) and math.isfinite(out) and out > 0
        if self.vanishing_ratio is None or not measured:
            return []
        vanished = dense == 0 or dense < self.vanishing_ratio * out
        text = (
            f"The gradient norm of head.dense is {dense / out:.2g} times that of head.out "
            f"({where}), so the activation passes almost no gradient and the layers before it "
            f"hardly learn: {CALMER}, or try {OPENER}."
        )
        return list(
            self._begin("vanishing", vanished, Alert("Gradient vanishes in the head", text))
        )

    def _blackout(self, frac: float | None, where: str) -> Iterator[Alert]:
        if self.blackout_frac is None or frac is None:
            return
        text = (
            f"On {frac:.2%} of the validation images every unit of the head is closed ({where}), "
            f"so these images send no gradient to the backbone: {CALMER}, or try {OPENER}."
        )
        alert = Alert("Blackout: images that open no unit", text)
        yield from self._begin("blackout", frac > self.blackout_frac, alert)

    def _dead_jump(self, name: Window, dead: float | None, where: str) -> Iterator[Alert]:
        if dead is None or math.isnan(dead):
            return
        before = self.dead_before.get(name, math.inf)  # the first window cannot have risen
        self.dead_before[name] = dead
        if self.dead_jump_frac is None:
            return
        text = (
            f"The share of dead units in the head rose from {before:.1%} to {dead:.1%} in the "
            f"{IMAGES[name]} window ({where}): {CALMER}, set diagnostics.revive_every_n_epochs=1, "
            f"or try {OPENER}."
        )
        alert = Alert("Units of the head are dying", text)
        yield from self._begin(f"dead_jump/{name}", dead - before > self.dead_jump_frac, alert)

    def _begin(self, condition: str, holds: bool, alert: Alert) -> Iterator[Alert]:
        """The alert, unless a condition (`kind/window`) of the same kind already held."""
        kind = condition.partition("/")[0]
        known = any(active.partition("/")[0] == kind for active in self.active)
        if holds and not known:
            yield alert
        (self.active.add if holds else self.active.discard)(condition)


class Alerts(HeadListener):
    """Prints an alert, and sends it to W&B, when the monitor's numbers need attention.

    The texts contain shares and steps, but nothing about images or patients. The arguments are
    those of `Rules`.
    """

    def __init__(
        self,
        blackout_frac: float | None = 0.0,
        dead_jump_frac: float | None = 0.1,
        vanishing_ratio: float | None = 1e-2,
    ) -> None:
        self.rules = Rules(blackout_frac, dead_jump_frac, vanishing_ratio)

    def state_dict(self) -> dict[str, Any]:
        return self.rules.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rules.load_state_dict(state_dict)

    def on_head_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: dict[str, float]
    ) -> None:
        self._show(self.rules.step(values, _where(trainer)), trainer)

    def on_head_window(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, closed: ClosedWindow
    ) -> None:
        self._show(self.rules.window(closed.name, closed.values, _where(trainer)), trainer)

    def _show(self, alerts: list[Alert], trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        for alert in alerts:
            # print, since rich's live bar moves printed lines above itself; a separate console
            # would write into the bar.
            print(f"alert: {alert.text}", flush=True)
            log_alert(trainer, alert.title, alert.text)


def _where(trainer: pl.Trainer) -> str:
    """Epoch as on the console (from 1), step as in `metrics.csv` and W&B."""
    return f"epoch {trainer.current_epoch + 1}, step {trainer.global_step - 1}"
