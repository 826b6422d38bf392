"""Derivatives of an activation of the user's own, which must be right in every way to take them."""

from copy import deepcopy

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
    """`check_elementwise` in both modes, and refuse what cannot be trained or measured.

    Value and derivative must be numbers for pre-activations of a usual size; backpropagation and
    forward mode (`torch.func.jvp`) must give the same derivative, which must not be 0 everywhere;
    every parameter must get a gradient, and no buffer may change. The activation itself is not
    called.

    Args:
        activation, width, name: as in `check_elementwise`.

    Raises:
        InputError: one of this does not hold.
    """
    like = next(tensors_of(activation), None)
    if like is not None and like.is_meta:
        return
    trial = _copied(activation, name)
    for training in (False, True):
        if isinstance(trial, nn.Module):
            trial.train(training)
        check_elementwise(trial, width, name)
    _check_buffers(activation, trial, name)
    z = probes(width, like)[0]
    z = torch.cat([z, torch.zeros_like(z[:1])])
    try:
        value, backward = gate(trial, z)
        forward = _forward_derivative(trial, z)
    except Exception as error:
        raise InputError(f"{name} has no derivative, since {_reason(error)}") from None
    _check_numbers(z, value, backward, name)
    differ = ~torch.isclose(forward, backward, rtol=2e-3, atol=1e-4, equal_nan=True) & (z != 0)
    if differ.any():
        raise InputError(
            f"{name} has two derivatives at {z[differ][0]:.2g}: {backward[differ][0]:.4g} by "
            f"backward, {forward[differ][0]:.4g} by jvp; correct one of them"
        )
    _check_parameters(trial, z, name)


def _copied(activation: Function, name: str) -> Function:
    try:
        return deepcopy(activation)
    except Exception as error:
        raise InputError(
            f"{name} cannot be copied ({first_sentence(error)}), as averages of weights and "
            "ablations do; keep only modules, tensors and plain values in it"
        ) from None


def _check_buffers(before: Function, after: Function, name: str) -> None:
    if isinstance(before, nn.Module) and isinstance(after, nn.Module):
        own = dict(before.named_buffers())
        for key, buffer in after.named_buffers():
            if key not in own or not torch.equal(own[key], buffer):
                raise InputError(
                    f"{name} changes its buffer {key} when it computes, so its gate would depend "
                    "on earlier images; keep it constant"
                )


def _check_numbers(z: Tensor, value: Tensor, slope: Tensor, name: str) -> None:
    usual = z.abs() <= USUAL
    for what, numbers in (("value", value), ("derivative", slope)):
        if not numbers[usual].isfinite().all():
            at = z[usual & ~numbers.isfinite()][0]
            raise InputError(f"{name} has no finite {what} at {at:.2g}; define it for all numbers")
    if not slope.any():
        raise InputError(
            f"{name} has the derivative 0 from {z.min():.2g} to {z.max():.2g}, so that nothing "
            "before it would be trained; use one with a slope"
        )


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
