"""`fluoroscope.watch` as a callback of Lightning, for any LightningModule."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from torch import nn

from fluoroscope.instrument.watched_training import WatchedTraining


class UnitMonitor(WatchedTraining, pl.Callback):
    """Logs the units of a LightningModule by `self.log`, to all of its loggers.

    Keys: `units/{train,val}/{layer}/{name}`, with the names of `LayerSums.numbers`, and
    `units/train/grad_l2`, at the end of each training epoch and each validation. The values cover
    all processes. A validation counts every image, a training epoch every image of the fit's
    optimizer steps 0, n, 2n, ... It needs nothing of the module: any batches, targets and heads,
    and manual optimization. A function that `training_step` itself calls is not seen; one that the
    module's `forward` calls is.

    Args:
        layers: see `fluoroscope.watch`.
        every_n_steps: n.
        tolerance: gates at or below it count as closed.
        prefix: begins the keys.

    Attributes:
        units: of the present or last fit, or validation without a fit.
    """

    _warn = staticmethod(rank_zero_warn)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._is_open:  # `trainer.validate`, without a fit
            self._watch(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.close()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, error: Any) -> None:
        self.close()

    def _watch(self, model: nn.Module) -> None:
        super()._watch(model)
        self._count(False, False)
        self._steps, self._last_step = -1, -1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        # Lightning's number grows by several where a batch has several optimizers.
        if trainer.global_step != self._last_step:
            self._steps, self._last_step = self._steps + 1, trainer.global_step
        self._count(self._steps % self.every_n_steps == 0, _is_compiled(pl_module))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._count(False, _is_compiled(pl_module))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._count(not trainer.sanity_checking, _is_compiled(pl_module))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._count(False, _is_compiled(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log("train", "train", pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._log("eval", "val", pl_module)

    def _log(self, window: str, key: str, pl_module: pl.LightningModule) -> None:
        values = {k.replace("/eval/", f"/{key}/", 1): v for k, v in self._take(window).items()}
        # The values cover all processes already, so Lightning has nothing to reduce.
        pl_module.log_dict(values, on_step=False, on_epoch=True)


def _is_compiled(module: pl.LightningModule) -> bool:
    """Whether its `training_step` is."""
    return module._compiler_ctx is not None
