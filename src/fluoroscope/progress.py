"""A live bar on a terminal, a line per epoch in a log."""

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fluoroscope.diagnostics.monitor import Monitor


class ProgressReport(pl.Callback):
    """Loss, validation AUROC, dead share and images/s.

    Numbers are fetched from the device every `every_n_steps` only: each look is a device sync.

    Args:
        monitor: where the dead share comes from; None without diagnostics.
        bar: a live bar; otherwise a line per epoch.
    """

    def __init__(self, monitor: Monitor | None, bar: bool, every_n_steps: int) -> None:
        self.monitor, self.every_n_steps = monitor, every_n_steps
        self.console = Console()
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=not bar,
        )
        self.bar = bar
        self._loss = self._images_per_s = float("nan")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress.start()
            self._task = self.progress.add_task("", total=None, epoch="", numbers="")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._images, self._since = 0, time.perf_counter()
        if trainer.is_global_zero:
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            total = int(trainer.num_training_batches)
            self.progress.reset(
                self._task, total=total, epoch=epoch, numbers=self._numbers(trainer)
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._images += len(batch["target"]) * trainer.world_size
        last = i + 1 == trainer.num_training_batches
        if trainer.is_global_zero and (last or (i + 1) % self.every_n_steps == 0):
            self._loss = outputs["loss"].item() * trainer.accumulate_grad_batches
            self._images_per_s = self._images / (time.perf_counter() - self._since)
            numbers = self._numbers(trainer)
            self.progress.update(self._task, completed=i + 1, numbers=numbers)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and not self.bar:
            epoch = f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}"
            seconds = time.perf_counter() - self._since
            self.console.print(
                f"{epoch}  {self._numbers(trainer)}  {seconds:.1f} s", highlight=False
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, error: Any) -> None:
        self.progress.stop()

    def _numbers(self, trainer: pl.Trainer) -> str:
        auroc = float(trainer.callback_metrics.get("val/auroc", float("nan")))
        parts = [f"loss {self._loss:.3f}", f"val AUROC {auroc:.3f}"]
        if self.monitor is not None:
            dead = self.monitor.last.get("units/val/dead_frac", float("nan"))
            parts.append(f"dead {dead:.1%}")
        parts.append(f"{self._images_per_s:.0f} images/s")
        return "  ".join(parts)
