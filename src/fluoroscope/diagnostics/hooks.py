"""The base of callbacks that register hooks on modules."""

from typing import Any

import pytorch_lightning as pl


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
