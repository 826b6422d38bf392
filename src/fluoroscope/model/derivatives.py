"""Derivatives of an activation of the user's own, which must be right in every way to take them."""

import torch
from torch import Tensor, nn

from fluoroscope.elementwise import (
    Function,
    check_elementwise,
    forward_of,
    gate,
    probes,
    tensors_of,
)
from fluoroscope.errors import InputError, first_sentence

USUAL = 1.0  # size of pre-activations that every head has


def check_differentiable(activation: Function, width: int, name: str) -> None:
    """`check_elementwise`, and refuse an activation that cannot be trained or measured.

    Backpropagation and forward mode (`torch.func.jvp`) must give the same derivative, which must be
    a number for pre-activations of a usual size, and every parameter must get a gradient.

    Args:
        activation, width, name: as in `check_elementwise`.

    Raises:
        InputError: one of this does not hold.
    """
    check_elementwise(activation, width, name)
    like = next(tensors_of(activation), None)
    if like is not None and like.is_meta:
        return
    z = probes(width, like)[0]
    try:
        _, backward = gate(activation, z)
        forward = _forward_derivative(activation, z)
    except Exception as error:
        raise InputError(f"{name} has no derivative, since {_reason(error)}") from None
    usual = z.abs() <= USUAL
    if not backward[usual].isfinite().all():
        at = z[usual & ~backward.isfinite()][0]
        raise InputError(f"{name} has no finite derivative at {at:.2g}; define it for all numbers")
    differ = ~torch.isclose(forward, backward, rtol=2e-3, atol=1e-5, equal_nan=True)
    if differ.any():
        raise InputError(
            f"{name} has two derivatives at {z[differ][0]:.2g}: {backward[differ][0]:.4g} by "
            f"backward, {forward[differ][0]:.4g} by jvp; correct one of them"
        )
    _check_parameters(activation, z, name)


def _forward_derivative(activation: Function, z: Tensor) -> Tensor:
    """As `gate`, by forward mode."""
    with torch.inference_mode(False), torch.enable_grad():
        function = forward_of(activation)
        ones = torch.ones_like(z)
        return torch.func.jvp(lambda x: function(x.clone()), (z.clone(),), (ones,))[1].detach()


def _reason(error: Exception) -> str:
    if isinstance(error, NotImplementedError) or "setup_context" in str(error):
        return (
            "its torch.autograd.Function cannot be differentiated in forward mode; it needs the "
            "static methods forward(...) without ctx, setup_context(ctx, inputs, output) and "
            "jvp(ctx, *tangents)"
        )
    return first_sentence(error)


def _check_parameters(activation: Function, z: Tensor, name: str) -> None:
    """Refuse a parameter without a gradient: processes that share the work would wait for it."""
    parameters = activation.named_parameters() if isinstance(activation, nn.Module) else ()
    learnt = {n: p for n, p in parameters if p.requires_grad and not p.is_inference()}
    if not learnt:
        return
    with torch.inference_mode(False), torch.enable_grad():
        a = forward_of(activation)(z.clone().requires_grad_())
        given = torch.autograd.grad(a.sum(), list(learnt.values()), allow_unused=True)
    if unused := [n for n, gradient in zip(learnt, given, strict=True) if gradient is None]:
        raise InputError(
            f"{name}: the parameter {unused[0]} gets no gradient; use it, or make it a buffer"
        )
