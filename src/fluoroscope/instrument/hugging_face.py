"""`fluoroscope.watch` as a callback of Transformers' Trainer; needs the extra `transformers`."""

from collections.abc import Callable
from typing import Any, Self

from fluoroscope.errors import InputError
from fluoroscope.instrument.watched_training import WatchedTraining

try:
    from transformers import TrainerCallback
except ImportError:
    raise InputError(
        "fluoroscope.instrument.hugging_face needs transformers; run pip install "
        "'fluoroscope[transformers]'"
    ) from None


class UnitCallback(WatchedTraining, TrainerCallback):
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

    _log: Callable[[dict[str, float]], None] | None = None

    def attach(self, trainer: Any) -> Self:
        """Add this callback to a Trainer, and log by it."""
        trainer.add_callback(self)
        self._log = trainer.log
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to watch."""
        self._watch(kwargs["model"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the passes of the steps whose number is divisible by `every_n_steps`."""
        self._count(state.global_step % self.every_n_steps == 0, args.torch_compile)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count every pass of an evaluation, which may follow."""
        self._count(True, args.torch_compile)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the training epoch."""
        self._close_window("train")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the evaluation."""
        self._close_window("eval")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the hooks; evaluations after the training are not counted."""
        self.close()

    def _close_window(self, window: str) -> None:
        values = self._take(window)
        if values and self._log is not None:
            self._log(values)
