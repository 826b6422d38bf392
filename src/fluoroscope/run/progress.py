"""One console line per epoch, a live bar on a terminal, and how long the run will take."""

import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fluoroscope.config.train import Train
from fluoroscope.console import CleanConsole, own_stream
from fluoroscope.diagnostics.keys import DEAD

FORECAST_BATCHES, SLOW_S = 10, 10.0
MIN_S, LONG_S = 60.0, 3600.0  # a shorter run needs no forecast; a longer one on a CPU needs advice
BACKWARD = 3  # a training step costs a forward pass, and a backward pass of twice its arithmetic


class ProgressReport(pl.Callback):
    """Prints the mean loss of the epoch so far, validation AUROC, dead share and images/s.

    Numbers are fetched from the device only every `every_n_steps` batches, since each fetch is a
    device sync. After the first ten batches it prints how long the run will take.

    Args:
        bar: show the live bar of the epoch.
    """

    def __init__(self, bar: bool, cfg: Train) -> None:
        self.cfg, self.every_n_steps = cfg, cfg.trainer.log_every_n_steps
        self._batches = 0  # of this process
        self.console = CleanConsole(file=own_stream(sys.stdout))
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=not bar,
            transient=True,
        )
        self._loss = self._images_per_s = math.nan
        self._losses: Any = 0.0

    def window_state(self) -> dict[str, float]:
        """State of this process in the current epoch."""
        return {"losses": float(self._losses)}

    def load_window_state(self, state: dict[str, float]) -> None:
        self._losses = state["losses"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress.start()
            self._task = self.progress.add_task("", total=None, numbers="")
        self._begin(trainer)  # a run resumed within an epoch does not start it

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._losses = 0.0
        if self._batches < FORECAST_BATCHES:
            self._batches = 0  # a validation lies between
        self._begin(trainer)

    def _begin(self, trainer: pl.Trainer) -> None:
        self._images, self._since = 0, time.perf_counter()
        if trainer.is_global_zero:
            total, numbers = int(trainer.num_training_batches), self._numbers(trainer)
            self.progress.reset(
                self._task, total=total, description=self._epoch(trainer), numbers=numbers
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._images += len(batch["target"]) * trainer.world_size
        self._losses = self._losses + outputs["loss"].detach()  # stays on the device
        last = i + 1 == trainer.num_training_batches
        if trainer.is_global_zero and (last or (i + 1) % self.every_n_steps == 0):
            self._loss = self._losses.item() / math.ceil((i + 1) / trainer.accumulate_grad_batches)
            self._images_per_s = self._images / (time.perf_counter() - self._since)
            numbers = self._numbers(trainer)
            self.progress.update(self._task, completed=i + 1, numbers=numbers)
        self._forecast(trainer, pl_module.device)

    def _forecast(self, trainer: pl.Trainer, device: torch.device) -> None:
        """Once: after ten batches, without the first; on a slow CPU after one."""
        self._batches += 1
        if not trainer.is_global_zero or self._batches > FORECAST_BATCHES:
            return
        if device.type == "cuda" and self._batches in (1, FORECAST_BATCHES):
            torch.cuda.synchronize(device)
        now, count = time.perf_counter(), self._batches - 1
        if self._batches == 1:
            self._first = now
            if now - self._since < SLOW_S or device.type != "cpu" or self.cfg.backbone.compile:
                return
            self._batches, self._first, count = FORECAST_BATCHES, self._since, 1
        if self._batches == FORECAST_BATCHES:
            batches = int(trainer.num_training_batches), int(sum(trainer.num_val_batches))
            batch_s = (now - self._first) / count
            line = forecast(self.cfg, batch_s, *batches, on_cpu=device.type == "cpu")
            self.console.print(line) if line else None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            seconds = time.perf_counter() - self._since
            self.console.print(f"{self._epoch(trainer)}  {self._numbers(trainer)}  {seconds:.1f} s")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, error: Any) -> None:
        self.progress.stop()

    def _epoch(self, trainer: pl.Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}"

    def _numbers(self, trainer: pl.Trainer) -> str:
        """The numbers known so far; validation numbers are those of the last validation."""
        logged = trainer.callback_metrics
        parts = {
            "loss {:.3f}": self._loss,
            "val AUROC {:.3f}": float(logged.get("val/auroc", math.nan)),
            "dead {:.1%}": float(logged.get(DEAD.key("val"), math.nan)),
            "{:.0f} images/s": self._images_per_s,
        }
        return "  ".join(form.format(v) for form, v in parts.items() if not math.isnan(v))


def duration(seconds: float) -> str:
    """Seconds in a unit that reads well.

    >>> duration(42), duration(600), duration(36_000)
    ('42 s', '10 min', '10 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * LONG_S else f"{seconds / 3600:.0f} h"


def forecast(
    cfg: Train, batch_s: float, train_batches: int, val_batches: int, on_cpu: bool
) -> str | None:
    """Time of an epoch and of the run; None if the run is short.

    Args:
        batch_s: seconds per training batch.
        on_cpu: add which keys make a long run short.
    """
    val_s = batch_s if cfg.backbone.frozen else batch_s / BACKWARD
    epoch_s, epochs = train_batches * batch_s + val_batches * val_s, cfg.trainer.max_epochs
    if math.isnan(batch_s) or epochs * epoch_s < MIN_S:
        return None
    times = f"about {duration(epoch_s)} per epoch, {duration(epochs * epoch_s)} for {epochs} epochs"
    keys = faster_keys(cfg)
    if not on_cpu or epochs * epoch_s < LONG_S or not keys:
        return times
    return f"{times} on this CPU; {' or '.join(keys)} takes a small part of that"


def faster_keys(cfg: Train) -> list[str]:
    """Keys that make a run on a CPU shorter; none if all of them are set."""
    keys = [] if "lite0" in cfg.backbone.name else ["backbone=lite0"]
    if cfg.data.features == "live":
        frozen = "" if cfg.backbone.frozen else "backbone.frozen=true "
        still = "data.augment=[] " if cfg.data.augment else ""
        keys.append(f"{frozen}{still}data.features=cached")
    return keys
