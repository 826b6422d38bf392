"""Callbacks that watch a training: the arms of `diagnostics`, and those of every run."""

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor, nn

from benchmarks.fits import Training
from fluoroscope import build
from fluoroscope.diagnostics.nonfinite import NonFinite
from fluoroscope.instrument.lightning import UnitMonitor
from fluoroscope.run.preemption import Preemption
from fluoroscope.run.progress import ProgressReport

OFF, MONITOR = "off", "monitor"


def callbacks(arm: str, training: Training) -> list[Callback]:
    """The callbacks of an arm: none for `off`, all diagnostics of a run for `monitor`."""
    every = training.cfg.diagnostics.every_n_steps
    if arm == MONITOR:
        return build.build_watchers(training.cfg, training.folder)
    if arm == "units":
        return [UnitMonitor(every_n_steps=every)]
    if arm == "watch_gradients":
        return [Watch("gradients", every)]
    if arm == "watch_all":
        return [Watch("all", every)]
    return [ExtraPass()] if arm == "extra_pass" else []


def of_every_run(training: Training) -> list[Callback]:
    """What a run does at each batch besides its diagnostics: listen to the scheduler, and count."""
    return [Listening(), Counting(False, training.cfg)]


class Listening(pl.Callback):
    """Exchanges signals between the processes before each batch, as in a run."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.preemption = Preemption()
        self.preemption.attend(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.preemption.obey()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.preemption.rest()


class Counting(ProgressReport):
    """Computes the mean loss and images/s of the epoch, and prints nothing."""

    def _forecast(self, trainer: pl.Trainer, device: torch.device) -> None:
        """Print nothing."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print nothing."""


class Watch(pl.Callback):
    """`wandb.watch` during a fit: histograms of every gradient, or of every parameter too.

    Args:
        log: "gradients", or "all" for parameters and gradients.
        every_n_steps: batches between two logs.
    """

    def __init__(self, log: Literal["gradients", "all"], every_n_steps: int) -> None:
        self.log_what, self.every_n_steps = log, every_n_steps

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.run: Any = next(x for x in trainer.loggers if isinstance(x, WandbLogger)).experiment
        # Without the index every further fit would log under new names.
        self.run.watch(pl_module, log=self.log_what, log_freq=self.every_n_steps, idx=0)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.run.unwatch(pl_module)


class ExtraPass(pl.Callback):
    """Share of units that are zero on all images, by one more forward pass over the training set.

    The pass is spread over the epoch, one batch per step; its cost is the same.

    Source: keras-contrib, callbacks/dead_relu_detector.py, which does it at the end of each epoch.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.zero: Tensor | None = None
        self.dead_frac = float("nan")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        head: Any = pl_module.head
        handle = head.activation.register_forward_hook(self._count)
        pl_module.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            pl_module(batch["image"])
        pl_module.train()
        handle.remove()

    def _count(self, activation: nn.Module, inputs: tuple[Tensor], a: Tensor) -> None:
        zero = (a == 0).all(dim=0)
        self.zero = zero if self.zero is None else self.zero & zero

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.zero is not None:
            self.dead_frac = self.zero.double().mean().item()


class AsOnGpu(pl.Callback):
    """Make a CPU run look for non-finite numbers as rarely as a GPU run; must be the last callback.

    A CPU run looks at every step, since it has no device to wait for.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, NonFinite):
                callback.immediate = False
