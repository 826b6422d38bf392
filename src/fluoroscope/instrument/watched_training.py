"""What the callbacks of Lightning and of Transformers have in common."""

import warnings
from collections.abc import Callable, Sequence

from torch import nn

from fluoroscope.errors import InputError
from fluoroscope.instrument.refusals import check_layers, check_numbers
from fluoroscope.instrument.watching import Units
from fluoroscope.instrument.without_compiler import WithoutCompiler


class WatchedTraining:
    """A watch over a training that another library runs.

    Args:
        layers: see `fluoroscope.watch`.
        every_n_steps: in training, counts each step whose number is divisible by it.
        tolerance: gates at or below it count as closed.
        prefix: begins the keys.

    Attributes:
        units: of the present or last training; None before the first.
        values: the last numbers by key.
    """

    units: Units | None = None
    _warn: Callable[[str], None] = staticmethod(warnings.warn)

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
        self.values: dict[str, float] = {}
        self._silent: set[str] = set()  # windows of which it was told that nothing is counted
        self._without_compiler = WithoutCompiler()

    @property
    def _is_open(self) -> bool:
        return self.units is not None and self.units.is_open

    def _watch(self, model: nn.Module) -> None:
        self.close()
        self.units = Units(model, self.layers, tolerance=self.tolerance)

    def close(self) -> None:
        """Remove the hooks, also of a training that ended with an error."""
        self._without_compiler.__exit__()
        if self.units is not None:
            self.units.close()

    def _count(self, due: bool, is_compiled: bool) -> None:
        """Whether the passes that follow are counted, and whether a compiler runs them."""
        if self.units is None:
            return
        self.units.counting = due
        self._without_compiler.__exit__()
        if due and is_compiled:
            self._without_compiler.__enter__()

    def _take(self, window: str) -> dict[str, float]:
        """The numbers of a window, which begins anew; none, and one warning, without a layer."""
        if self.units is None or not self.units.is_open:
            return {}
        try:
            values = self.units.values(window, prefix=self.prefix)
        except InputError as error:
            if window not in self._silent:
                self._silent.add(window)
                self._warn(f"{type(self).__name__}: {error}")
            return {}
        self.units.reset(window)
        self.values |= values
        return values
