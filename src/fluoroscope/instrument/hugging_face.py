"""`fluoroscope.watch` as a callback of Transformers' Trainer; needs the extra `transformers`."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

from fluoroscope.errors import InputError
from fluoroscope.instrument.refusals import check_layers, check_numbers
from fluoroscope.instrument.watching import Units
from fluoroscope.instrument.without_compiler import WithoutCompiler

try:
    from transformers import TrainerCallback
except ImportError:
    raise InputError(
        "fluoroscope.instrument.hugging_face needs transformers; run pip install "
        "'fluoroscope[transformers]'"
    ) from None


class UnitCallback(TrainerCallback):
    """Counts the units of a Trainer's model, and logs them after each epoch and each evaluation.

    `UnitCallback().attach(trainer)` logs by `trainer.log`, which reaches the log history and all
    integrations. In `Trainer(callbacks=[UnitCallback()])` it only counts: `values` holds the last
    numbers by key. Keys and windows are those of `UnitMonitor`, with `eval` for the evaluation.

    Args:
        layers: see `fluoroscope.watch`.
        every_n_steps: in training, counts the optimizer steps whose number is divisible by it.
        tolerance: gates at or below it count as closed.
        prefix: begins the keys.

    Attributes:
        units: of the present or last training.
        values: the last numbers by key.
    """

    units: Units | None = None

    def __init__(
        self,
        layers: str | Sequence[str] = "*",
        every_n_steps: int = 10,
        tolerance: float = 1e-6,
        prefix: str = "units",
    ) -> None:
        check_numbers(every_n_steps, tolerance, "every_n_steps")
        check_layers(layers)
        self.layers, self.every_n_steps, self.tolerance = layers, every_n_steps, tolerance
        self.prefix = prefix
        self.values: dict[str, float] = {}
        self._log: Callable[[dict[str, float]], None] | None = None
        self._silent: set[str] = set()
        self._without_compiler = WithoutCompiler()

    def attach(self, trainer: Any) -> Self:
        """Add this callback to a Trainer, and log by it."""
        trainer.add_callback(self)
        self._log = trainer.log
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to watch."""
        self.close()
        self.units = Units(kwargs["model"], self.layers, tolerance=self.tolerance)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the passes of the steps whose number is divisible by `every_n_steps`."""
        self._count(state.global_step % self.every_n_steps == 0, args)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count every pass of an evaluation, which may follow."""
        self._count(True, args)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the training epoch."""
        self._close_window("train")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the evaluation."""
        self._close_window("eval")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the hooks; evaluations after the training are not counted."""
        self.close()

    def close(self) -> None:
        """Remove the hooks, for a training that ended with an error."""
        self._without_compiler.__exit__()
        if self.units is not None:
            self.units.close()

    def _count(self, due: bool, args: Any) -> None:
        if self.units is None:
            return
        self.units.counting = due
        self._without_compiler.__exit__()
        if due and args.torch_compile:
            self._without_compiler.__enter__()

    def _close_window(self, window: str) -> None:
        if self.units is None or not self.units.is_open:
            return
        try:
            values = self.units.values(window, prefix=self.prefix)
        except InputError as error:
            if window not in self._silent:
                self._silent.add(window)
                warnings.warn(f"UnitCallback: {error}", stacklevel=2)
            return
        self.values |= values
        if self._log is not None:
            self._log(values)
        self.units.reset(window)
