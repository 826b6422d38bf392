"""A kill from a scheduler in a run of several processes."""

import signal
from typing import Any

import pytorch_lightning as pl


class Shutdown(pl.Callback):
    """Ends every process on SIGTERM, by the handler that was there before the training.

    Lightning's handler broadcasts from within: a process that waits for another one in a
    collective operation never comes to that, and all of them hang until they are killed.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.handler: Any = signal.getsignal(signal.SIGTERM)  # Lightning's comes after this

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1 and callable(self.handler):
            self.launcher = trainer.strategy.launcher
            signal.signal(signal.SIGTERM, self._end)

    def _end(self, signum: int, frame: Any) -> None:
        if self.launcher is not None:
            self.launcher.kill(signum)
        self.handler(signum, frame)
