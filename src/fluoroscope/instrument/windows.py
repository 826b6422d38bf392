"""The windows of a watched network: what was counted, by window and layer, and its merging."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from fluoroscope.diagnostics.gradients import l2
from fluoroscope.diagnostics.layer_metrics import LayerSums
from fluoroscope.instrument.layer_call import Layer


@dataclass
class WindowSums:
    """What was counted in a window, on the CPU; the sums of two processes add up.

    Attributes:
        layers: by name, in the order of their first calls.
        squares: of the gradient of all parameters, and the number of optimizer steps, `[2]`.
        calls: counted calls of the network.
    """

    layers: dict[str, LayerSums] = field(default_factory=dict)
    squares: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    calls: int = 0

    def __add__(self, other: "WindowSums") -> "WindowSums":
        mine, theirs = self.layers, other.layers
        both = {name: mine[name] + theirs[name] for name in mine if name in theirs}
        squares, calls = self.squares + other.squares, self.calls + other.calls
        return WindowSums({**mine, **theirs, **both}, squares, calls)

    @property
    def grad_l2(self) -> float:
        """L2 norm of the gradient of the network, its root mean square over the steps."""
        return float((self.squares[0] / self.squares[1]).sqrt())


class Window:
    """What is counted since the last reset, on the device."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.squares: Tensor | None = None
        self.calls = 0

    def add_step(
        self, parameters: list[torch.nn.Parameter], scale: Tensor | float | None = None
    ) -> None:
        """Add the gradient that an optimizer is about to use; one that overflowed is left out.

        Args:
            scale: of the loss, if the optimizer removes it only within its step.
        """
        norm = l2(parameters).double()
        square = (norm if scale is None else norm / scale).square()
        squares = torch.stack([square, torch.ones_like(square)]) * square.isfinite()
        squares = squares.nan_to_num(0.0)
        self.squares = squares if self.squares is None else self.squares.to(square.device) + squares

    def sums(self) -> WindowSums:
        """A copy on the CPU."""
        layers = {name: layer.sums() for name, layer in self.layers.items() if layer.by_width}
        squares = torch.zeros(2, dtype=torch.float64) if self.squares is None else self.squares
        return WindowSums(layers, squares.cpu(), self.calls)


def over_processes(windows: dict[str, WindowSums]) -> dict[str, WindowSums]:
    """The sums of all processes of a distributed training, each of which must call this."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return windows
    parts: list[dict[str, WindowSums]] = [{}] * dist.get_world_size()
    dist.all_gather_object(parts, windows)
    merged: dict[str, WindowSums] = {}
    for part in parts:
        for name, sums in part.items():
            merged[name] = merged[name] + sums if name in merged else sums
    return merged
