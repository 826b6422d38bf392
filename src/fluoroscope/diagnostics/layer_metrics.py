"""The numbers of one watched activation, computed from tensors alone."""

import math
import warnings
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from fluoroscope.diagnostics import keys
from fluoroscope.diagnostics.channels import SHARES, ChannelCensus, channel_shares, kinds
from fluoroscope.diagnostics.gradients import UnitGradient, gradient_score, is_dormant
from fluoroscope.elementwise import Function

GRAD_L2 = "grad_l2"
GRADIENT = (keys.GRAD_DORMANT.name, GRAD_L2)  # numbers that need a backward pass


class LayerMetrics:
    """Census, blackouts and gradients of an activation a = phi(z) of any shape over a window.

    It knows neither a trainer nor a model: `LayerMonitor` feeds it in a run, `fluoroscope.watch` in
    any network. If calls differ in width, the channels of all widths are the layer's units. Nothing
    waits for the device before the window is read.

    Args:
        activation: the elementwise phi, a module or a function.
        tolerance: gates at or below it count as closed.
        blackouts: whether images are counted, see `ChannelCensus`.

    Attributes:
        by_width: the census of the channels, by their number.
    """

    def __init__(
        self, activation: Function, tolerance: float = 1e-6, blackouts: bool = False
    ) -> None:
        self.activation, self.tolerance, self.blackouts = activation, tolerance, blackouts
        self.by_width: dict[int, ChannelCensus] = {}
        self.gradients: dict[int, UnitGradient] = {}
        self.squares: Tensor | None = None  # [2]: of dL/dz, and the backward passes

    def expect(self, width: int, device: torch.device) -> ChannelCensus:
        """The census of layers of this width; makes it if this is the first one."""
        if width not in self.by_width:
            census = ChannelCensus(self.activation, width, self.tolerance, self.blackouts)
            self.by_width[width] = census.to(device)
        return self.by_width[width]

    def update(self, z: Tensor, dim: int) -> None:
        """Add pre-activations `[B, ...]` with the channels in dimension `dim`."""
        census = self.expect(z.shape[dim], z.device)
        if census.sums.device != z.device:
            census.to(z.device)
        census.update(z, dim)

    def add_gradient(self, dz: Tensor, dim: int) -> None:
        """Add dL/dz of one backward pass, of the shape of z; what overflowed is left out."""
        dz = dz.detach()
        by_unit = dz.movedim(dim, -1).reshape(-1, dz.shape[dim])  # [samples, C]
        if by_unit.element_size() < 4:
            by_unit = by_unit.float()  # half precision overflows in sums over all positions
        gradient = self.gradients.setdefault(dz.shape[dim], UnitGradient())
        if gradient.sums is not None:
            gradient.sums = gradient.sums.to(dz.device)
        gradient.update(by_unit)
        square = torch.linalg.vector_norm(dz, dtype=torch.float64).square()
        squares = torch.stack([square, torch.ones_like(square)]) * square.isfinite()
        squares = squares.nan_to_num(0.0)
        self.squares = squares if self.squares is None else self.squares.to(dz.device) + squares

    def close(self, device: torch.device) -> Tensor:
        """`SHARES` over all processes and the share that was not finite, `[5]`; starts a window."""
        by_width = {}
        for width, census in sorted(self.by_width.items()):
            with warnings.catch_warnings():  # the caller reports an empty window
                warnings.simplefilter("ignore")
                by_width[width] = torch.cat([census.compute(), census.nonfinite_frac[None]])
            census.reset()
        return _over_widths(by_width, device)

    def sums(self) -> "LayerSums":
        """What this process counted in the window, on the CPU."""
        by_width = {w: WidthSums.of(c, self.gradients.get(w)) for w, c in self.by_width.items()}
        squares = torch.zeros(2, dtype=torch.float64) if self.squares is None else self.squares
        return LayerSums(by_width, squares.cpu())


class WidthSums(NamedTuple):
    """Sums of a `ChannelCensus` and of a `UnitGradient` (zero if there was no gradient)."""

    sums: Tensor  # [7, C]
    left_out: Tensor  # [2, C]
    images: Tensor  # [2]
    gradient: Tensor  # [C]

    @classmethod
    def of(cls, census: ChannelCensus, gradient: UnitGradient | None) -> Self:
        """A copy on the CPU."""
        none = gradient is None or gradient.sums is None
        sums = torch.zeros_like(census.sums[0]) if none else gradient.sums  # type: ignore[union-attr]
        parts = (census.sums, census.left_out, census.images, sums)
        return cls(*(part.cpu() for part in parts))  # type: ignore[union-attr]

    def plus(self, other: Self) -> Self:
        """The sums of both."""
        return type(self)(*(a + b for a, b in zip(self, other, strict=True)))


class LayerUnits(NamedTuple):
    """Values per unit, `[C]`; NaN where nothing was seen."""

    dead: Tensor  # bool
    linear: Tensor  # bool
    gate_open_share: Tensor
    grad_score: Tensor  # see `UnitGradient`


@dataclass
class LayerSums:
    """What was counted of a layer in a window, on the CPU; the sums of two processes add up.

    Attributes:
        by_width: by the number of channels.
        squares: the squares of dL/dz and the number of backward passes, `[2]`.
    """

    by_width: dict[int, WidthSums] = field(default_factory=dict)
    squares: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))

    def __add__(self, other: "LayerSums") -> "LayerSums":
        mine, theirs = self.by_width, other.by_width
        both = {w: mine[w].plus(theirs[w]) for w in mine.keys() & theirs.keys()}
        return LayerSums({**mine, **theirs, **both}, self.squares + other.squares)

    def units(self) -> LayerUnits:
        """Values per unit, in the order of the channels; narrower layers first."""
        widths = [self.by_width[width] for width in sorted(self.by_width)]
        found = [kinds(w.sums, w.left_out) for w in widths]
        gradient = torch.cat([torch.zeros(0, dtype=torch.float64), *(w.gradient for w in widths)])
        score = gradient_score(gradient) if self.squares[1] else torch.full_like(gradient, math.nan)
        return LayerUnits(
            torch.cat([torch.zeros(0, dtype=torch.bool), *(dead for dead, _ in found)]),
            torch.cat([torch.zeros(0, dtype=torch.bool), *(linear for _, linear in found)]),
            torch.cat([torch.zeros(0), *(w.sums[1] / w.sums[0] for w in widths)]),
            score,
        )

    def numbers(self) -> dict[str, float]:
        """The layer's numbers; NaN where nothing was seen.

        Keys: `SHARES` as in `ChannelCensus`, `nonfinite_frac` (samples left out), `blackout_frac`
        (images, entries of the first dimension, on which every unit is closed at every position),
        `grad_dormant_frac` (units whose mean abs dL/dz is at most 0.01 of the layer's mean), and
        `grad_l2` (L2 norm of dL/dz, its root mean square over the backward passes).
        """
        parts = {w: channel_shares(s.sums, s.left_out) for w, s in self.by_width.items()}
        shares = _over_widths(dict(sorted(parts.items())), torch.device("cpu"))
        images = torch.stack([torch.zeros(2), *(s.images for s in self.by_width.values())]).sum(0)
        squares, passes = self.squares
        dormant = is_dormant(self.units().grad_score).double().mean() if passes else math.nan
        names = [*SHARES, keys.NONFINITE.name, keys.BLACKOUT.name, *GRADIENT]
        values = [*shares, images[1] / images[0], dormant, (squares / passes).sqrt()]
        return dict(zip(names, map(float, values), strict=True))


def _over_widths(by_width: dict[int, Tensor], device: torch.device) -> Tensor:
    """The mean over all channels of numbers by width, each `[5]`; NaN without any width."""
    total = torch.zeros(len(SHARES) + 1, dtype=torch.float64, device=device)
    for width, values in by_width.items():
        total = total + width * values
    units = sum(by_width)
    return total / units if units else total.fill_(math.nan)
