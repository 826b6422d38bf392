"""`fluoroscope.watch` as a callback of Lightning, for any LightningModule."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn

from fluoroscope.diagnostics.monitor import HookedCallback
from fluoroscope.errors import InputError
from fluoroscope.instrument.refusals import check_layers, check_numbers
from fluoroscope.instrument.watching import Units
from fluoroscope.instrument.without_compiler import WithoutCompiler


class UnitMonitor(HookedCallback):
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

    units: Units

    def __init__(
        self,
        layers: str | Sequence[str] = "*",
        every_n_steps: int = 10,
        tolerance: float = 1e-6,
        prefix: str = "units",
    ) -> None:
        super().__init__()
        check_numbers(every_n_steps, tolerance, "every_n_steps")
        check_layers(layers)
        self.layers, self.every_n_steps, self.tolerance = layers, every_n_steps, tolerance
        self.prefix = prefix
        self._silent: set[str] = set()
        self._without_compiler = WithoutCompiler()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._handles:  # `trainer.validate`, without a fit
            self._watch(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._remove_hooks()

    def _watch(self, pl_module: pl.LightningModule) -> None:
        self.units = Units(pl_module, self.layers, tolerance=self.tolerance)
        self.units.counting = False
        self._handles = [self.units]
        self._steps, self._last_step = -1, -1

    def _remove_hooks(self) -> None:
        self._without_compiler.__exit__()
        for units in self._handles:
            units.close()
        self._handles = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        # Lightning's number grows by several where a batch has several optimizers.
        if trainer.global_step != self._last_step:
            self._steps, self._last_step = self._steps + 1, trainer.global_step
        self._count(self._steps % self.every_n_steps == 0, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._count(False, pl_module)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._count(not trainer.sanity_checking, pl_module)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._count(False, pl_module)

    def _count(self, due: bool, pl_module: pl.LightningModule) -> None:
        self.units.counting = due
        self._without_compiler.__exit__()
        if due and pl_module._compiler_ctx is not None:  # its `training_step` is compiled
            self._without_compiler.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log("train", "train", pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._log("eval", "val", pl_module)

    def _log(self, window: str, key: str, pl_module: pl.LightningModule) -> None:
        if not self._handles:
            return
        try:
            values = self.units.values(window, prefix=self.prefix)
        except InputError as error:
            if key not in self._silent:
                self._silent.add(key)
                rank_zero_warn(f"UnitMonitor: {error}")
            return
        values = {k.replace("/eval/", f"/{key}/", 1): v for k, v in values.items()}
        # The values cover all processes already, so Lightning has nothing to reduce.
        pl_module.log_dict(values, on_step=False, on_epoch=True)
        self.units.reset(window)
