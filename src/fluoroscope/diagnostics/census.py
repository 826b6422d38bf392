"""The census: which units of a layer are dead on the data, and which are linear."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import Metric

from fluoroscope.elementwise import Function, as_tensor, check_elementwise, gate

LINEAR_CORR2 = 0.99
CONFIDENCE = 0.95
RARE_IMAGES = 8
DORMANT = {"dormant_frac_0025": 0.025, "dormant_frac_01": 0.1}
LARGEST = 1e150  # of a value that counts: sums of products of larger ones overflow in float64


class UnitCensus(Metric):
    """Dead, linear and nonlinear units over a window of images.

    The window is all images since the last `reset`. All states are sums or maxima, so that windows
    merge exactly across batches and processes; `compute` merges the processes. Nothing waits for
    the device before `compute`.

    With z a pre-activation, a = phi(z) and the gate g = phi'(z), a unit is *open* on an image
    where abs g > tolerance. A unit is *dead* if it is open on no image of the window, *linear* if
    it is not dead and corr(z, a)^2 > 0.99, else *nonlinear*.

    Pairs of an image and a unit that are not finite are left out and counted (`nonfinite_frac`): of
    the gates where z or g is NaN (the gate of an infinite z is known if it has a limit), of the
    other numbers where z or a is NaN, infinite or above 1e150. An image without any known gate
    counts only there. A unit without any known gate is neither dead nor linear.

    Args:
        activation: the elementwise phi, a module or a function.
        width: D, the number of units.
        tolerance: gates at or below it count as closed.
        effective_rank: False saves its `[D, D]` sums and leaves the key out.

    Raises:
        InputError: if the activation is not elementwise, such as softmax or GLU.

    Attributes:
        opened, gate: of this process's last batch: units open on at least one image, bool `[D]`,
            and the gates `[B, D]`.
        dead, gate_open_share, z_mean, z_max: per unit of the window that `compute` closed, `[D]`.
        constant: units whose activation hardly varies in that window, bool `[D]`. A dead unit that
            saturates on both sides is not among them: it is closed, but takes two values.
        dead_before: `dead` of the previous window in which a gate of the unit was known.
    """

    full_state_update = False

    images: Tensor
    blind_images: Tensor
    unknown: Tensor
    nonfinite: Tensor
    blackout_images: Tensor
    open_images: Tensor
    zero_images: Tensor
    moments: Tensor
    highest: Tensor
    products: Tensor

    # Sums made in inference mode could not be added to outside of it.
    @torch.inference_mode(False)
    def __init__(
        self,
        activation: Function,
        width: int,
        tolerance: float = 1e-6,
        effective_rank: bool = True,
    ) -> None:
        super().__init__()
        check_elementwise(activation, width)
        self.activation = activation
        self.tolerance, self.effective_rank = tolerance, effective_rank
        for name in ("images", "blind_images", "blackout_images"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        # `unknown` and `nonfinite` count what is left out of the gates and of the other numbers.
        for name in ("unknown", "nonfinite", "open_images", "zero_images"):
            self.add_state(name, torch.zeros(width, dtype=torch.long), dist_reduce_fx="sum")
        # Sums of z, a, z^2, a^2, za, abs a. In float64 they are exact enough for a threshold of
        # 0.99 on a correlation, and unlike running means they simply add.
        moments = torch.zeros(6, width, dtype=torch.float64)
        self.add_state("moments", moments, dist_reduce_fx="sum")
        lowest = torch.full((width,), -math.inf, dtype=torch.float64)
        self.add_state("highest", lowest, dist_reduce_fx="max")
        # Sums of a_i a_j. In float32 their rounding errors would count as further directions.
        side = width if effective_rank else 0
        products = torch.zeros(side, side, dtype=torch.float64)
        self.add_state("products", products, dist_reduce_fx="sum")
        self.opened = torch.zeros(width, dtype=torch.bool)
        self.gate: Tensor | None = None
        self.gate_open_share = self.z_mean = self.z_max = torch.full((width,), math.nan)
        self.constant = torch.zeros(width, dtype=torch.bool)
        self.dead: Tensor | None = None
        self.dead_before: Tensor | None = None
        self._known = torch.zeros(width, dtype=torch.bool)

    def update(self, z: Any) -> None:
        """Add the pre-activations `[B, D]` of a batch, a tensor or a numpy array.

        Raises:
            ValueError: if `z` has another shape.
        """
        z = as_tensor(z, self.activation).detach().to(self.moments.device)
        if z.ndim != 2 or z.shape[1] != len(self.highest):
            wanted = f"[B, {len(self.highest)}]"
            raise ValueError(f"pre-activations must have the shape {wanted}; got {list(z.shape)}")
        a, g = gate(self.activation, z)
        known = ~(z.isnan() | g.isnan())  # [B, D]
        is_open = known & (g.abs() > self.tolerance)
        self.gate, self.opened = g, is_open.any(dim=0)
        seen = known.any(dim=1)  # [B]
        self.images += seen.sum()
        self.blind_images += (~seen).sum()
        self.unknown += (seen[:, None] & ~known).sum(dim=0)
        self.blackout_images += (seen & ~is_open.any(dim=1)).sum()
        self.open_images += is_open.sum(dim=0)
        self.zero_images += (known & (a == 0)).sum(dim=0)
        self._add_values(z.to(self.moments.dtype), a.to(self.moments.dtype), seen[:, None])

    def _add_values(self, z: Tensor, a: Tensor, seen: Tensor) -> None:
        finite = seen & (z.abs() <= LARGEST) & (a.abs() <= LARGEST)
        self.nonfinite += (seen & ~finite).sum(dim=0)
        highest = torch.cat([self.highest[None], z.where(finite, -math.inf)])
        self.highest = highest.amax(dim=0)
        z, a = z.where(finite, 0.0), a.where(finite, 0.0)
        self.moments += torch.stack([z, a, z * z, a * a, z * a, a.abs()]).sum(dim=1)
        if self.effective_rank:
            self.products.addmm_(a.T, a)

    def compute(self) -> dict[str, float]:
        """The census and related numbers; NaN for a window without images.

        Keys: `dead_frac`, `linear_frac`, `nonlinear_frac` (they add to 1), `blackout_frac` (share
        of images on which every unit is closed), `gate_open_frac` and `zero_frac` (shares of
        image-unit pairs), `rare_frac` (units open on 1 to 7 images), `dormant_frac_0025` and
        `dormant_frac_01` (units with mean abs a at most 0.025 and 0.1 of the layer's),
        `dead_bound_frac` (a unit open on a smaller share of images cannot be distinguished from a
        dead one, at 95 %), `newly_dead_frac` and `revived_frac` (units that crossed since the
        previous window; NaN in the first), `nonfinite_frac` (image-unit pairs left out of the other
        numbers), `effective_rank` of a (in units; NaN where all are 0).

        Source: dormant units after Sokar et al. 2023, definition 3.1; effective rank after Roy and
        Vetterli 2007.
        """
        n, blind = self.images.double(), self.blind_images.double()
        known, finite = n - self.unknown, n - self.nonfinite  # [D]
        self._known = known > 0
        dead = self.dead = self._known & (self.open_images == 0)
        linear = ~dead & (correlation2(self.moments[:5], finite) > LINEAR_CORR2)
        self.gate_open_share, self.z_mean = self.open_images / known, self.moments[0] / finite
        self.z_max, self.constant = self.highest, is_constant(self.moments, finite)
        before = self.dead_before
        nan = n.new_full((), math.nan)
        size = self.moments[5] / finite
        size = size / size.nanmean()
        values = {
            "dead_frac": _mean(dead),
            "linear_frac": _mean(linear),
            "nonlinear_frac": _mean(~dead & ~linear),
            "blackout_frac": self.blackout_images / n,
            "gate_open_frac": _mean(self.open_images) / _mean(known),
            "zero_frac": _mean(self.zero_images) / _mean(known),
            "rare_frac": _mean((self.open_images > 0) & (self.open_images < RARE_IMAGES)),
            # Negated, since the size is NaN if all activations are 0.
            **{k: _mean((finite > 0) & ~(size > share)) for k, share in DORMANT.items()},
            "dead_bound_frac": 1 - (1 - CONFIDENCE) ** (1 / n),
            "newly_dead_frac": nan if before is None else _mean(dead & ~before),
            "revived_frac": nan if before is None else _mean(before & self._known & ~dead),
            "nonfinite_frac": (_mean(self.nonfinite) + blind) / (n + blind),
        }
        if self.effective_rank:
            values["effective_rank"] = effective_rank(self.products)
        numbers = torch.stack([torch.where(n + blind > 0, v, nan) for v in values.values()])
        return dict(zip(values, numbers.tolist(), strict=True))

    @torch.inference_mode(False)
    def reset(self) -> None:
        """Start a new window; the last window's dead units become `dead_before`."""
        super().reset()
        # Metric calls reset before __init__ has ended.
        dead = getattr(self, "dead", None)
        if dead is not None and self._known.any():
            before = dead if self.dead_before is None else self.dead_before
            self.dead_before = torch.where(self._known, dead, before)


def correlation2(moments: Tensor, n: Tensor) -> Tensor:
    """Squared correlation of z and a per unit, `[D]`, from the sums of z, a, z^2, a^2, za `[5, D]`.

    1 where z or a is constant: a straight line fits such a unit exactly.

    Args:
        n: number of values, one for all units or `[D]`.
    """
    z, a, zz, aa, za = moments / n
    var_z, var_a, cov = zz - z * z, aa - a * a, za - z * a
    # Where the variance is zero, cancellation leaves some ulp of the second moment: of a few
    # operations, and of the additions, whose errors have one sign if all values are equal.
    floor = (16 + n) * torch.finfo(moments.dtype).eps
    constant = (var_z <= floor * zz) | (var_a <= floor * aa)
    return torch.where(constant, torch.ones_like(cov), cov * cov / (var_z * var_a))


def is_constant(moments: Tensor, n: Tensor) -> Tensor:
    """Units `[D]` whose a varies by at most a thousandth of the layer's root mean square."""
    mean_a, mean_aa = moments[1] / n, moments[3] / n
    return mean_aa - mean_a**2 <= 1e-6 * mean_aa.nanmean()


def effective_rank(products: Tensor) -> Tensor:
    """Exp of the entropy of the singular values of a, which add to 1; from a^T a `[D, D]`.

    Source: Roy and Vetterli 2007, "The effective rank".
    """
    if not (products.any() and products.isfinite().all()):
        return products.new_full((), math.nan)
    singular = torch.linalg.eigvalsh(products).clamp(min=0).sqrt()
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp()


def tail_gain(norm: nn.Module | None) -> Tensor:
    """The largest factor by which batch norm stretches a unit at evaluation; NaN without one.

    max over units of abs gamma / sqrt(running variance + eps). The variance of a unit long dead is
    near 0: if one image opens it again, its value is multiplied by up to 1 / sqrt(eps).
    """
    if not isinstance(norm, _BatchNorm) or norm.running_var is None:
        return torch.tensor(math.nan)
    gamma = 1.0 if norm.weight is None else norm.weight.abs()
    return (gamma / (norm.running_var + norm.eps).sqrt()).max().detach()


def _mean(per_unit: Tensor) -> Tensor:
    return per_unit.double().mean()
