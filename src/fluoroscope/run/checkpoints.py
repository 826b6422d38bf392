"""Checkpoints from which a resumed run continues as if it had never stopped."""

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn

from fluoroscope.config.shareable import for_checkpoint
from fluoroscope.config.train import Train
from fluoroscope.data.leakage import training_marks
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError, LoadingError
from fluoroscope.run import run_folder
from fluoroscope.run.metrics_file import count_rows
from fluoroscope.run.patience import Patience
from fluoroscope.run.preemption import Preemption, gather


def own_entries(cfg: Train, studies: Studies) -> dict[str, Any]:
    """Entries of a checkpoint beside Lightning's: the configuration, and marks of the images.

    None of them names a person or a place.
    """
    return training_marks(studies) | {"config": for_checkpoint(cfg)}


class Saving(pl.Callback):
    """Write `last.ckpt` after every epoch, `best.ckpt` after the best, `step.ckpt` within an epoch.

    Lightning saves while an epoch or a batch ends, before the loggers have its last row. Here a
    checkpoint is written when the next batch or epoch starts: everything before is logged, and
    nothing of the next is done. It adds these entries to those of Lightning:

    | entry | meaning |
    | --- | --- |
    | `epochs`, `batches` | finished epochs, and finished batches of the next one |
    | `windows` | per process, the counts of its callbacks in that epoch: `window_state` |
    | `metrics_rows` | rows of `metrics.csv`, all of earlier steps |
    | those of `entries` | such as the configuration |

    Random states are not saved: the order, augmentation and dropout of a batch depend only on the
    seed, epoch, batch and process.

    It must be the trainer's first callback but `Opening`, before those that act on the next batch.

    Args:
        folder: run folder.
        entries: returns the entries that are added to each checkpoint.
        every_n_steps: optimizer steps between two `step.ckpt`; None writes one only when a signal
            stops the run.
        preemption: decides when all processes must stop.

    Attributes:
        best_score, best_epoch: validation AUROC and epoch (from 1) of `best.ckpt`; the epoch is 0
            before the first one.
        last_score, last_epoch: those of `last.ckpt`.

    Raises:
        Preempted: during the fit, once everything is saved.
    """

    def __init__(
        self,
        folder: Path,
        entries: Callable[[], dict[str, Any]],
        every_n_steps: int | None,
        preemption: Preemption,
    ) -> None:
        self.folder, self.entries = folder, cache(entries)
        self.every_n_steps, self.preemption = every_n_steps, preemption
        self.best_score, self.best_epoch = self.last_score, self.last_epoch = -math.inf, 0
        self._within, self._batches = False, 0
        self._windows: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        best = {"best_score": self.best_score, "best_epoch": self.best_epoch}
        return {**best, "last_score": self.last_score, "last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self.last_score = state_dict.get("last_score", self.best_score)
        self.last_epoch = state_dict.get("last_epoch", self.best_epoch)
        if not run_folder.checkpoint(self.folder, "best").exists():
            self.best_score, self.best_epoch = self.last_score, self.last_epoch

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, callback in _watching(trainer).items():
            if name in self._windows:
                callback.load_window_state(self._windows[name])
        self._windows = {}
        # Otherwise Lightning trains one more epoch of a run that has stopped early.
        trainer.should_stop = any(c.is_exhausted for c in _all(trainer, Patience))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_epochs = trainer.current_epoch
        self.preemption.attend(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch > self._saved_epochs:
            self._save_epoch(trainer, pl_module)
        self.preemption.obey()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0 or batch_idx % trainer.accumulate_grad_batches:
            return
        save = partial(self._save_within, trainer, batch_idx)
        self.preemption.obey(save)
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            save()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Stop within a validation, since a scheduler does not wait; a resume repeats it."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.preemption.obey(partial(self._save_validation, trainer, pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save_epoch(trainer, pl_module)
        if trainer.is_global_zero:
            run_folder.checkpoint(self.folder, "step").unlink(missing_ok=True)
        self.preemption.rest()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save after a loading error, which occurs between two batches, so that no work is lost.

        With several processes nothing is saved: the others do not know of the error.
        """
        if not isinstance(exception, LoadingError) or trainer.world_size > 1:
            return
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        with suppress(InputError):  # a full disk must not hide the loading error
            if trainer.training and done and done % trainer.accumulate_grad_batches == 0:
                self._save_within(trainer, done)
            elif trainer.validating and trainer.state.fn == TrainerFn.FITTING:
                self._save_validation(trainer, pl_module)

    def _save_validation(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not pl_module.training:  # validation has started, on the averaged weights
            for average in _all(trainer, WeightAveraging):
                average.on_validation_epoch_end(trainer, pl_module)
        self._save_within(trainer, int(trainer.num_training_batches))

    def _save_within(self, trainer: pl.Trainer, batches: int) -> None:
        self._within, self._batches = True, batches
        trainer.save_checkpoint(run_folder.checkpoint(self.folder, "step"))

    def _save_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._within, self._batches = False, 0
        self._saved_epochs = trainer.current_epoch
        scores: Any = pl_module.scores
        score = scores["val"]["auroc"]
        self.last_score = -math.inf if math.isnan(score) else score  # undefined
        self.last_epoch = trainer.current_epoch
        better = self.last_score > self.best_score or not self.best_epoch
        if better:
            self.best_score, self.best_epoch = self.last_score, self.last_epoch
        trainer.save_checkpoint(run_folder.checkpoint(self.folder, "last"))
        if better:
            if trainer.is_global_zero:
                keep_as_best(self.folder)
            trainer.strategy.barrier()  # before other processes read it

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint |= self.entries()
        checkpoint |= {"epochs": trainer.current_epoch, "batches": self._batches}
        checkpoint["metrics_rows"] = count_rows(self.folder / run_folder.METRICS)
        loops = checkpoint["loops"]["fit_loop"]
        if self._within:
            checkpoint["windows"] = gather(_windows(trainer))
            _rewind_batch(loops, self._batches == trainer.num_training_batches)
        else:
            _rewind_epoch(loops)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        windows = checkpoint.get("windows")
        if windows is not None:
            self._windows = windows[trainer.global_rank]


def keep_as_best(folder: Path) -> None:
    """Copy `last.ckpt` to `best.ckpt`; a link would share any damage.

    Raises:
        InputError: if it cannot be written.
    """
    last, best = (run_folder.checkpoint(folder, name) for name in ("last", "best"))
    with run_folder.write_checkpoint(best) as part:
        shutil.copyfile(last, part)


def _all(trainer: pl.Trainer, kind: type) -> list[Any]:
    return [c for c in trainer.callbacks if isinstance(c, kind)]  # type: ignore[attr-defined]


def _watching(trainer: pl.Trainer) -> dict[str, Any]:
    """The callbacks that count within an epoch, by name."""
    found = [c for c in trainer.callbacks if hasattr(c, "window_state")]  # type: ignore[attr-defined]
    return {type(callback).__name__: callback for callback in found}


def _windows(trainer: pl.Trainer) -> dict[str, Any]:
    return {name: callback.window_state() for name, callback in _watching(trainer).items()}


def _rewind_batch(loops: dict[str, Any], validating: bool) -> None:
    """Set Lightning's counters back to before the batch, or the validation, that has started."""
    progress = loops["epoch_loop.batch_progress"]
    for part in ("total", "current"):
        progress[part] |= dict.fromkeys(("ready", "started"), progress[part]["completed"])
    progress["is_last_batch"] = validating
    if validating:
        started = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        again = {"total": started, "current": dict(started), "is_last_batch": False}
        loops["epoch_loop.val_loop.batch_progress"] |= again


def _rewind_epoch(loops: dict[str, Any]) -> None:
    """Set Lightning's counters back to before the epoch that has started."""
    progress = loops["epoch_progress"]
    for part in ("total", "current"):
        done = progress[part]["completed"]
        progress[part] |= dict.fromkeys(("ready", "started", "processed"), done)
