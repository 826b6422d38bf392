"""What callbacks share that listen to modules."""

from typing import Any

import pytorch_lightning as pl


class Tapping(pl.Callback):
    """Keeps the handles of its hooks and lets go of them when the fit ends, by an error too.

    A second fit of the same model would otherwise count every image twice.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._let_go()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, error: Any) -> None:
        self._let_go()

    def _let_go(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
