"""The callback that feeds a head's tensors to its metrics while it trains."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from fluoroscope.diagnostics import media
from fluoroscope.diagnostics.gradients import parts
from fluoroscope.diagnostics.head_metrics import ClosedWindow, HeadMetrics, History
from fluoroscope.diagnostics.keys import Window
from fluoroscope.diagnostics.window_state import head_state, restore_head


class HookedCallback(pl.Callback):
    """Removes its hooks when the fit ends, also after an error.

    A second fit of the same model would otherwise count every image twice.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._remove_hooks()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, error: Any) -> None:
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


class HeadListener(pl.Callback):
    """A callback to which the `Monitor` of the same trainer hands its results.

    Its position among the trainer's callbacks does not matter.
    """

    def on_head_start(self, metrics: HeadMetrics) -> None:
        """A fit starts; the monitor feeds `metrics` until it ends."""

    def on_head_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: dict[str, float]
    ) -> None:
        """An optimizer step was logged, with `values` by key."""

    def on_head_window(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, closed: ClosedWindow
    ) -> None:
        """A training epoch or a validation has ended, with this result."""


class Monitor(HookedCallback):
    """Logs the metrics of the head during a fit: `diagnostics.keys` lists and explains them all.

    Window keys cover a training epoch, or a validation, during which the weights are constant. The
    window `start` is a validation before the first optimizer step: Lightning's trial of the
    validation, over all its images. A resumed fit does not measure it again, but keeps it.
    Step keys are taken after the gradients are averaged across processes and unscaled, before
    clipping. Between the logged steps nothing waits for the device.

    W&B also gets two histograms per window, with 64 bins: `hist/{train,val}/gate_open_share` (over
    units) and `hist/{train,val}/pre_activation` (of the window's last batch).

    Args:
        every_n_steps: optimizer steps between two logs of the step keys.
        tolerance: gates at or below it count as closed.

    Attributes:
        metrics: the metrics of the present or last fit.
        history: first and last value of each number, including a resumed run's earlier part.
    """

    metrics: HeadMetrics

    def __init__(self, every_n_steps: int = 10, tolerance: float = 1e-6) -> None:
        super().__init__()
        self.every_n_steps, self.tolerance = every_n_steps, tolerance
        self.history = History()
        self._dead_before: dict[Window, Tensor] = {}
        self._window_state: dict[str, Any] = {}
        self._start: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        census = self.metrics.census.items()
        dead = {w: c.dead_before.cpu() for w, c in census if c.dead_before is not None}
        return {**vars(self.history), "dead_before": dead}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.first, self.history.last = state_dict["first"], state_dict["last"]
        self.history.dead_max = state_dict["dead_max"]
        self._dead_before = state_dict["dead_before"]

    def window_state(self) -> dict[str, Any]:
        """State of this process in the current training epoch."""
        return head_state(self.metrics)

    def load_window_state(self, state: dict[str, Any]) -> None:
        """Continue the training epoch from this state in the next fit."""
        self._window_state = state

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        head: Any = pl_module.head
        self.metrics = HeadMetrics(
            head.activation,
            head.dense.weight,
            head.pre_activation,
            head.norm,
            parts(pl_module.backbone, head),  # type: ignore[arg-type]
            self.tolerance,
        )
        self.metrics.history = self.history
        for window, dead in self._dead_before.items():
            self.metrics.census[window].dead_before = dead.to(pl_module.device)
        if self._window_state:
            restore_head(self.metrics, self._window_state)
            self._window_state = {}
        self._known: Tensor | None = None
        self._f = torch.empty(0)
        self._z: dict[Window, Tensor] = {}
        self._trainer = trainer
        self._starts = trainer.ckpt_path is None  # else the checkpoint's history has the start
        if self._starts and trainer.num_sanity_val_steps:
            trainer.num_sanity_val_steps = math.inf
        self._handles = [
            head.register_forward_pre_hook(self._receive_features),
            # Before the activation, since one that works in place overwrites z.
            head.activation.register_forward_pre_hook(self._receive_units),
            head.activation.register_forward_hook(self._receive_activation),
        ]
        for listener in _listeners(trainer):
            listener.on_head_start(self.metrics)

    def _window(self) -> Window | None:
        if self._trainer.sanity_checking:
            return "start" if self._starts else None
        if self._trainer.training:
            return "train"
        return "val" if self._trainer.validating else None

    def _is_logged(self) -> bool:
        return self._trainer.global_step % self.every_n_steps == 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._start:  # the loggers are open only now
            self._log({**self._start, "epoch": 0}, step=0)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._known = ~batch["target"].isnan().all(dim=1)

    def _receive_features(self, head: nn.Module, inputs: tuple[Tensor]) -> None:
        """Keep f and hook dL/df; only for this, features of a frozen backbone get a gradient."""
        features = inputs[0]
        self._f = features.detach()
        if self._window() == "train" and torch.is_grad_enabled():
            if not features.requires_grad:
                features.requires_grad_(True)
            features.register_hook(self._receive_feature_gradient)

    def _receive_feature_gradient(self, gradient: Tensor) -> None:
        self.metrics.add_feature_gradient(gradient, self._known)

    def _receive_units(self, activation: nn.Module, inputs: tuple[Tensor]) -> None:
        window = self._window()
        if window is not None:
            z = inputs[0].detach()
            self.metrics.update(window, z, self._f)
            self._z[window] = z.clone()  # the activation, or a part of it, may work in place

    def _receive_activation(self, activation: nn.Module, inputs: tuple[Tensor], a: Tensor) -> None:
        if self._window() == "train" and a.requires_grad:
            f, gate, logged = self._f, self.metrics.gate, self._is_logged()
            receive = partial(self.metrics.add_activation_gradient, f, gate, measure=logged)
            a.register_hook(receive)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradient = self.metrics.weight.grad
        if gradient is not None:
            self.metrics.add_weight_gradient(gradient)
        if self._is_logged():
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            divisor = trainer.world_size * (1.0 if scaler is None else scaler.get_scale())
            self.metrics.begin_step(_sum_over_processes(trainer), divisor)
        self.metrics.forget_accumulated()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        values = self.metrics.end_step()
        if values:
            # Not by `log_dict`, which logs only every `trainer.log_every_n_steps` steps.
            self._log({**values, "epoch": trainer.current_epoch}, trainer.global_step - 1)
            for listener in _listeners(trainer):
                listener.on_head_step(trainer, pl_module, values)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        closed = self._close("train", trainer)
        closed.values.update(self.metrics.close_gradients(_sum_over_processes(trainer)))
        closed = closed._replace(grad_score=self.metrics.grad_score)
        self._publish(closed, trainer, pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.metrics.census["val"].reset()
            self.metrics.features["val"].reset()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._handles:
            return
        if not trainer.sanity_checking:
            self._publish(self._close("val", trainer), trainer, pl_module)
        elif self._starts:
            self._start = self.metrics.close("start").values

    def _close(self, window: Window, trainer: pl.Trainer) -> ClosedWindow:
        if not self.metrics.census[window].update_called:
            rank_zero_warn(
                f"the monitor saw no pre-activation in this {window} window, so its numbers are "
                "NaN; check that the model calls `head.activation`"
            )
        closed = self.metrics.close(window)
        if window in self._z:
            shown = {"gate_open_share": closed.gate_open_share, "pre_activation": self._z[window]}
            histograms = {f"hist/{window}/{name}": values for name, values in shown.items()}
            media.log_histograms(trainer, histograms)
        return closed

    def _log(self, row: dict[str, float], step: int) -> None:
        for logger in self._trainer.loggers:
            logger.log_metrics(row, step)

    def _publish(
        self, closed: ClosedWindow, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Log the values, which already cover all processes, and hand them to the listeners."""
        pl_module.log_dict(closed.values, on_step=False, on_epoch=True)
        for listener in _listeners(trainer):
            listener.on_head_window(trainer, pl_module, closed)


def _listeners(trainer: pl.Trainer) -> Iterator[HeadListener]:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return (callback for callback in callbacks if isinstance(callback, HeadListener))


def _sum_over_processes(trainer: pl.Trainer) -> Any:
    return partial(trainer.strategy.reduce, reduce_op="sum")
