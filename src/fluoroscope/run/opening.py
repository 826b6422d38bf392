"""Begin a run: decide whether one is continued, and write its first files after all checks."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.loggers.logger import DummyLogger, Logger

from fluoroscope.config.added import WORDS
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.console import short_path
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.launch.run_id import is_restarted
from fluoroscope.launch.run_status import AUTO
from fluoroscope.run import run_folder, schedule, wandb_mode
from fluoroscope.run.resume import Start, restore
from fluoroscope.run.same_model import check_same_model


class Opening(pl.Callback):
    """Write a run's configuration and identity and open its loggers, right before the first batch.

    Lightning checks some keys only within the fit. A run that is refused until then leaves its
    folder, new or old, as it was. It must be the first of the trainer's callbacks.

    Args:
        provenance: of this command; the run's id is added, and a resumed run keeps its own.
        start: where the run continues; None for a new one.
        open_loggers: called with W&B's mode and the run's id.

    Attributes:
        is_done: whether the files are written.

    Raises:
        InputError: if the mode of W&B is impossible.
    """

    def __init__(
        self,
        cfg: Train,
        folder: Path,
        provenance: dict[str, Any],
        start: Start | None,
        open_loggers: Callable[[str, str], list[Logger]],
    ) -> None:
        self.cfg, self.folder, self.provenance = cfg, folder, provenance
        self.start, self.open_loggers = start, open_loggers
        self.mode, self.why = wandb_mode.choose_mode(cfg.logger.mode)
        self.is_done = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.loggers = [DummyLogger()]  # some callbacks refuse a trainer without one at once

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open(trainer)
        if self.start is not None and self.start.checkpoint is not None:
            schedule.follow(trainer, self.start)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open a resumed run that had nothing left to train."""
        if not self.is_done:
            self._open(trainer)
            if is_first_process():
                print(schedule.nothing_left(trainer))

    def _open(self, trainer: pl.Trainer) -> None:
        first, auto = is_first_process(), self.cfg.logger.mode == "auto"
        before = None if self.start is None else self.start.provenance
        run_id = run_folder.new_run_id() if before is None else before["run_id"]
        # If the server refuses the run, an explicit mode fails; `auto` goes offline with a line.
        print(self.why) if first and auto else None
        trainer.loggers = self.open_loggers(self.mode, run_id)
        if first:
            print(self.why) if not auto else None
            added = {section: plain(getattr(self.cfg, section)) for section in WORDS}
            self._write({"run_id": run_id, **self.provenance, **added}, before)
            print(f"run folder {short_path(self.folder)}")
        self.is_done = True

    def _write(self, provenance: dict[str, Any], before: dict[str, Any] | None) -> None:
        if self.start is not None:
            restore(self.folder, self.start)
        if before is not None:
            provenance["resumed_from"] = before
        run_folder.write_text(self.folder / run_folder.CONFIG, OmegaConf.to_yaml(self.cfg))
        run_folder.write_json(self.folder / run_folder.PROVENANCE, provenance)


def continues(cfg: Train, folder: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to continue the run in the folder: if `run.resume` names it, if `auto` finds a run
    in it, or if SLURM has started the job again and it holds a run.

    Raises:
        InputError: if the run found is one of another model.
    """
    if cfg.run.resume not in (None, AUTO):
        return True
    if (
        not (is_restarted(environ) or cfg.run.resume == AUTO)
        or not (folder / run_folder.CONFIG).exists()
    ):
        return False
    check_same_model(cfg, folder)
    return True
