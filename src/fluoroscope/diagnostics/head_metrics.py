"""The numbers of a head while it trains, computed from tensors alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fluoroscope.diagnostics import keys
from fluoroscope.diagnostics.census import UnitCensus, tail_gain
from fluoroscope.diagnostics.feature_moments import FeatureMoments
from fluoroscope.diagnostics.gradients import (
    FeatureGradient,
    GateEffect,
    StarvedRows,
    UnitGradient,
    gradient_score,
    is_dormant,
    l2,
    ratio,
)
from fluoroscope.diagnostics.keys import GRAD, START, UNITS, WINDOWS, Window

Reduce = Callable[[Tensor], Tensor]


class ClosedWindow(NamedTuple):
    """The result of a window: numbers by metric key, and values per unit as in `UnitCensus`."""

    name: Window
    values: dict[str, float]
    dead: Tensor  # [D]
    constant: Tensor  # [D]
    gate_open_share: Tensor  # [D]
    z_mean: Tensor  # [D]
    z_max: Tensor  # [D]
    mean_features: Tensor  # [F]
    grad_score: Tensor | None = None  # [D], of a training window, see `UnitGradient`


class HeadMetrics:
    """Census, feature statistics and gradients of a head that computes a = phi(z(f)).

    This class knows neither a trainer nor a particular model: an adapter feeds it tensors and
    gets numbers by metric key (`diagnostics.keys`). It has more of them than `LayerMetrics`, since
    a head's features and weights are known and its units have no positions. The order of calls:

    1. `update` in each forward pass;
    2. `add_activation_gradient` and `add_feature_gradient` in each backward pass;
    3. `add_weight_gradient` and `begin_step` once the gradient is complete, before clipping;
    4. `end_step` after the optimizer's step, which returns the numbers of the step;
    5. `close` and `close_gradients` at the end of a window, which return its numbers.

    Steps that are not logged need neither `begin_step` nor `end_step`. Sums stay on the device
    until numbers are requested.

    Args:
        activation: the elementwise phi.
        weight: `[D, F]` of the linear layer that receives the features.
        pre_activation: the function from f `[B, F]` to z `[B, D]`.
        norm: the head's normalisation layer, for `bn_tail_gain_max`; None without one.
        parts: parameters by name; the norm of their gradient is logged as `grad/l2/<name>`, and
            that of `total` also after clipping.
        tolerance: gates at or below it count as closed.
        effective_rank: False leaves the effective rank out, which costs `[D, D]` sums and an
            eigenvalue problem per window.

    Attributes:
        census, features: per window.
        history: the first and last value of each number.
        grad_score: of each unit in the training window that `close_gradients` closed, `[D]`.
    """

    def __init__(
        self,
        activation: nn.Module,
        weight: Tensor,
        pre_activation: Callable[[Tensor], Tensor],
        norm: nn.Module | None = None,
        parts: Mapping[str, Sequence[nn.Parameter]] | None = None,
        tolerance: float = 1e-6,
        effective_rank: bool = True,
    ) -> None:
        self.activation, self.weight, self.norm = activation, weight, norm
        self.pre_activation, self.parts, self.tolerance = pre_activation, parts or {}, tolerance
        windows: tuple[Window, ...] = (START, *WINDOWS)
        self.census = {window: self._census(effective_rank) for window in windows}
        self.features = {w: FeatureMoments(weight.shape[1]).to(weight.device) for w in windows}
        self.feature_gradient, self.starved = FeatureGradient(), StarvedRows()
        self.unit_gradient = UnitGradient()
        self.grad_score = weight.new_full((len(weight),), math.nan)
        self.history = History()
        self._backward: list[tuple[Tensor, Tensor, Tensor]] = []  # f, gates, dL/da of a batch
        self._step: dict[str, Tensor] = {}

    def _census(self, effective_rank: bool) -> UnitCensus:
        census = UnitCensus(self.activation, len(self.weight), self.tolerance, effective_rank)
        return census.to(self.weight.device)

    def add_effective_rank(self, window: Window) -> None:
        """Compute the effective rank from the next window on; call it between two windows."""
        dead_before = self.census[window].dead_before
        self.census[window] = self._census(effective_rank=True)
        self.census[window].dead_before = dead_before

    def update(self, window: Window, z: Tensor, f: Tensor | None = None) -> None:
        """Add a batch: pre-activations `[B, D]`, features `[B, F]` (None: counted elsewhere)."""
        self.census[window].update(z)
        if f is not None:
            self.features[window].update(f)

    @property
    def gate(self) -> Tensor:
        """Gates `[B, D]` of the last training batch."""
        gate = self.census["train"].gate
        assert gate is not None
        return gate

    def add_activation_gradient(
        self, f: Tensor, gate: Tensor, da: Tensor, measure: bool = True
    ) -> None:
        """Add dL/da `[B, D]` of a batch, with its features and gates.

        Args:
            measure: whether this step is logged.
        """
        self.unit_gradient.update(da * gate)
        if measure:
            self._backward.append((f, gate, da.detach()))

    def add_feature_gradient(self, df: Tensor, known: Tensor | None = None) -> None:
        """Add dL/df `[B, F]` of a batch; `known`, bool `[B]`, marks the images with a label."""
        self.feature_gradient.count(df, known)
        self.feature_gradient.measure(df)

    def add_dense_gradient(self, dz: Tensor, known: Tensor | None, measure: bool) -> None:
        """Add dL/dz `[B, D]` in place of dL/df and the gradient of the weight.

        A zero row of `dz` gives a zero row of dL/df, and a zero column gives the unit no gradient.
        Only the norm of dL/df, on logged steps, needs a large product.

        Args:
            measure: whether this step is logged.
        """
        self.feature_gradient.count(dz, known)
        self.starved.update(dz.T)
        if measure:
            weight = self.weight.detach()
            self.feature_gradient.measure(dz.to(weight) @ weight)

    def add_weight_gradient(self, gradient: Tensor) -> None:
        """Add the accumulated gradient of `weight` `[D, F]` at an optimizer step."""
        self.starved.update(gradient)

    def begin_step(self, reduce: Reduce = lambda sums: sums, divisor: float = 1.0) -> None:
        """Measure the gradient of a logged step, before clipping.

        Args:
            reduce: adds up the processes.
            divisor: of dL/df: the number of processes, over which the loss is averaged, times the
                loss scale.
        """
        self._step = {f"{GRAD}/l2/{name}": l2(group) for name, group in self.parts.items()}
        self._step |= self._reduced(reduce, divisor)
        self._weight_before = self.weight.detach().clone()

    def _reduced(self, reduce: Reduce, divisor: float) -> dict[str, Tensor]:
        effect = GateEffect(self.tolerance)
        for f, gate, da in self._backward:
            effect.update(self.pre_activation, f.to(self.weight.dtype), gate, da)
        self._backward = []
        squares = self.feature_gradient.squares
        sums = torch.full((4,), float("nan"), dtype=torch.float64, device=self.weight.device)
        if squares is not None and effect.sums is not None:
            sums = torch.cat([squares[None], effect.sums])
        sums = reduce(sums)
        values = {keys.FEATURES_L2.key(): sums[0].sqrt() / divisor}
        transmission, cosine = GateEffect.values(sums[1:])
        return values | {
            keys.GATE_TRANSMISSION.key(): transmission,
            keys.GATE_COSINE.key(): cosine,
        }

    def forget_accumulated(self) -> None:
        """Start a new accumulated gradient, once the optimizer has used the last one."""
        self.feature_gradient.squares = None

    def end_step(self) -> dict[str, float]:
        """The numbers of a logged step, with one device sync; empty if the step is not logged."""
        if not self._step:
            return {}
        weight, before = self.weight.detach(), self._weight_before
        # The gradients as the optimizer used them stay until the next backward pass.
        self._step[keys.L2_TOTAL_CLIPPED.key()] = l2(self.parts.get("total", ()))
        self._step[keys.UPDATE_RATIO.key()] = (weight - before).norm() / before.norm()
        numbers = torch.stack([v.double().to(weight.device) for v in self._step.values()]).tolist()
        values = dict(zip(self._step, numbers, strict=True))
        self._step = {}
        self.history.add(values)
        return values

    def close(self, window: Window, features: Mapping[str, float] | None = None) -> ClosedWindow:
        """Return the result of a window over all processes, and start the next window.

        Args:
            features: numbers of `FeatureMoments`, for heads that share their features.
        """
        census, moments = self.census[window], self.features[window]
        numbers = {**census.compute(), **(features or moments.compute())}
        numbers[keys.BN_TAIL_GAIN.name] = float(tail_gain(self.norm))
        closed = 1 - census.gate_open_share[~census.gate_open_share.isnan()]
        numbers[keys.BLACKOUT_EXPECTED.name] = float(closed.prod()) if len(closed) else math.nan
        if window == START:  # has no window before it
            del numbers[keys.NEWLY_DEAD.name], numbers[keys.REVIVED.name]
        values = {f"{UNITS}/{window}/{name}": number for name, number in numbers.items()}
        self.history.add(values)
        assert census.dead is not None
        per_unit = census.dead, census.constant, census.gate_open_share, census.z_mean, census.z_max
        census.reset()
        moments.reset()
        return ClosedWindow(window, values, *per_unit, moments.mean)

    def close_gradients(self, reduce: Reduce = lambda sums: sums) -> dict[str, float]:
        """Shares of units and images without gradient in the training window."""
        counts, sums = self.feature_gradient.counts, self.unit_gradient.sums
        dormant = math.nan
        if sums is not None:
            self.grad_score = gradient_score(reduce(sums))
            dormant = float(is_dormant(self.grad_score).double().mean())
        values = {
            keys.STARVED.key(): float(self.starved.frac()),
            keys.FEATURES_ZERO.key(): ratio(None if counts is None else reduce(counts)),
            keys.GRAD_DORMANT.key(): dormant,
        }
        self.starved.reset()
        self.feature_gradient.counts = self.unit_gradient.sums = None
        self.history.add(values)
        return values


class History:
    """The first and the last value of each number, and the largest dead share of any validation."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.dead_max = 0.0

    def add(self, values: Mapping[str, float]) -> None:
        """Add numbers by metric key."""
        self.first = {**values, **self.first}
        self.last = {**self.last, **values}
        self.dead_max = max(self.dead_max, values.get(keys.DEAD.key("val"), 0.0))
