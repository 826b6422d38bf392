"""Which units of the head decide a film, how many are open, and how far a blackout is.

Shapes: B films, D units, K labels.
"""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fluoroscope.elementwise import gate
from fluoroscope.model.head import Head

TOLERANCE = 1e-6  # of a closed gate, as in the census
FARTHEST = 1e4  # standard deviations; an activation that is open there never closes
HALVINGS = 50


class HeadUnits(NamedTuple):
    """Of B films.

    The logits are `base` plus the contributions of all units. The base is the logit of a film
    whose units all stand where the norm before `out` has its mean, which is the bias of this norm;
    without a norm it is the logit of units that give 0.

    Attributes:
        base: float64 `[K]`.
        contribution: float64 `[B, K, D]`.
        z: pre-activations, float64 `[B, D]`.
        open: whether the gate lets a gradient pass, bool `[B, D]`.
        blackout_shift: `[B]`, see `blackout_shift`.
    """

    base: Tensor
    contribution: Tensor
    z: Tensor
    open: Tensor
    blackout_shift: Tensor


@torch.no_grad()
def head_units(head: Head, features: Tensor) -> HeadUnits:
    """Take the logits of a head in evaluation mode apart, in float64.

    Args:
        head: of a trained model.
        features: of the backbone, `[B, F]`.
    """
    exact = deepcopy(head).cpu().double().eval()
    z = exact.pre_activation(features.cpu().double())
    a, slope = gate(exact.activation, z)
    norm_last = exact.order == "activation-norm"
    given = exact.norm(a) if norm_last else a  # [B, D], the input of `out`
    rest = _at_rest(exact, norm_last)
    weight = exact.out.weight  # [K, D]
    return HeadUnits(
        base=exact.out.bias + weight @ rest,
        contribution=(given - rest)[:, None] * weight,
        z=z,
        open=slope.abs() > TOLERANCE,
        blackout_shift=blackout_shift(exact.activation, z),
    )


def _at_rest(head: Head, norm_last: bool) -> Tensor:
    """The input of `out` from units at the mean of the norm, `[D]`; zeros without a norm."""
    bias = getattr(head.norm, "bias", None)
    if bias is None:
        return torch.zeros_like(head.dense.bias)
    return bias if norm_last else gate(head.activation, bias[None])[0][0]


def blackout_shift(activation: nn.Module, z: Tensor) -> Tensor:
    """How far all pre-activations of a film must fall together until every gate is closed.

    In standard deviations of the film's own pre-activations over the units. It is 0 in a blackout
    and NaN if no fall closes all gates, as for a leaky ReLU.

    Args:
        activation: elementwise.
        z: pre-activations `[B, D]`.

    Returns:
        float64 `[B]`.
    """
    spread = z.std(dim=1, correction=0).clamp_min(1e-12)

    def black(shift: Tensor) -> Tensor:
        slope = gate(activation, z - (shift * spread)[:, None])[1]
        return ~(slope.abs() > TOLERANCE).any(dim=1)

    low, high = torch.zeros_like(spread), torch.full_like(spread, FARTHEST)
    never, already = ~black(high), black(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        closed = black(middle)
        high, low = torch.where(closed, middle, high), torch.where(closed, low, middle)
    return torch.where(already, 0.0, torch.where(never, torch.nan, high))


def units_for_half(contribution: Tensor) -> Tensor:
    """The fewest units whose contributions are half of all, by absolute value.

    Args:
        contribution: `[..., D]`.

    Returns:
        int64 `[...]`; 0 if no unit contributes.
    """
    size = contribution.abs().sort(dim=-1, descending=True).values.cumsum(-1)
    whole = size[..., -1:]
    return torch.where(whole[..., 0] > 0, (size < whole / 2).sum(-1) + 1, 0)
