"""Elementwise functions: their derivative as autograd takes it, and the refusal of any other."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fluoroscope.errors import InputError, first_sentence

Function = nn.Module | Callable[[Tensor], Tensor]
PROBED_IMAGES = 8


def gate(activation: Function, z: Any) -> tuple[Tensor, Tensor]:
    """Value and derivative of an elementwise function at `z`, both of the shape of `z`.

    The derivative is the one that backpropagation uses, also at a kink: at 0 it is 0 for ReLU and
    the slope for PReLU. It is 0 for a function without a gradient, such as a step. Hooks of the
    activation do not fire, its parameters receive no gradient, and `z` does not change even if the
    activation, or a part of it, works in place.

    Args:
        activation: a module or a function of a tensor.
        z: see `as_tensor`.
    """
    z = as_tensor(z, activation)
    # Saved for the derivative are copies, which a later part of the activation cannot overwrite,
    # and which the hooks of a checkpointed block do not see.
    copies = saved_tensors_hooks(torch.clone, lambda copy: copy)
    with torch.inference_mode(False), torch.enable_grad(), copies:
        x = (z.clone() if z.is_inference() else z.detach()).requires_grad_()
        a = forward_of(activation)(x.clone())
        if not a.requires_grad:
            return a, torch.zeros_like(x)
        ones = torch.ones_like(a)
        (g,) = torch.autograd.grad(a, x, ones, allow_unused=True, materialize_grads=True)
    return a.detach(), g


def as_tensor(values: Any, activation: Function | None = None) -> Tensor:
    """Numbers as a tensor of floating-point numbers; one that is such a tensor is returned itself.

    Numpy's arrays of half, single and double precision keep their precision, all other numbers
    become float64. If the activation has parameters, the copy has their precision and device.
    """
    if isinstance(values, Tensor):
        if values.is_floating_point():
            return values
        copy = values.double()
    else:
        array = np.asarray(values)
        kept = array.dtype.kind == "f" and array.dtype.itemsize <= 8
        kind = np.dtype(f"f{array.dtype.itemsize}") if kept else np.float64
        copy = torch.from_numpy(np.array(array, dtype=kind, order="C"))
    like = next(tensors_of(activation), None)
    return copy if like is None else copy.to(like)


def check_elementwise(activation: Function, width: int, name: str | None = None) -> None:
    """Refuse what has no gate per unit: softmax, GLU, a norm, dropout.

    Args:
        activation: computes `[B, D]` from `[B, D]`.
        width: D.
        name: what the refusal calls the activation.

    Raises:
        InputError: if the activation cannot compute `[B, D]`, returns another shape or type, draws
            random numbers or keeps a state, or computes a unit from other units or images, from
            their number or their order.
    """
    name = name or getattr(activation, "__name__", type(activation).__name__)
    like = next(tensors_of(activation), None)
    if like is not None and like.is_meta:
        return  # without values nothing can be compared
    x, other, replaced = probes(width, like)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
        before = torch.get_rng_state()
        try:
            of_x, again, of_other, of_mixed, turned, of_first = (
                forward_of(activation)(probe.clone())
                for probe in (x, x, other, torch.where(replaced, other, x), x.flip(0), x[:1])
            )
        except (Exception, SystemExit) as error:
            reason = first_sentence(error) if isinstance(error, Exception) else "it exits"
            raise InputError(f"{name} cannot be computed for {width} units: {reason}") from None
        has_drawn = not torch.equal(before, torch.get_rng_state())
    if not isinstance(of_x, Tensor) or of_x.shape != x.shape or not of_x.is_floating_point():
        problem = "it does not return one number per unit"
    elif of_x.dtype != x.dtype:
        problem = f"it turns {x.dtype} into {of_x.dtype}"
    elif has_drawn or not _equal(of_x, again, rtol=0.0):
        problem = "it draws random numbers or keeps a state"
    elif (
        not _equal(of_mixed, torch.where(replaced, of_other, of_x))
        # Other places in memory may be rounded otherwise, also to zero.
        or not _equal(turned.flip(0), of_x, rtol=2e-2, atol=1e-5)
        or not _equal(of_first, of_x[:1], rtol=2e-2, atol=1e-5)
    ):
        problem = "the value of a unit depends on other units or images"
    else:
        return
    raise InputError(
        f"{name} is not an elementwise activation, since {problem}; use one such as relu or gelu, "
        "whose gate is defined for each unit"
    )


def works_in_place(activation: Function, width: int) -> bool:
    """Whether an activation of `[B, D]`, or a part of it, overwrites its input."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
        x = probes(width, next(tensors_of(activation), None))[0]
        before = x._version
        forward_of(activation)(x)
    return x._version != before


def probes(width: int, like: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Two fixed draws `[8, D]` of numbers small and large, and a random half of their places."""
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-2, 1.5, PROBED_IMAGES)[:, None]
    x, other = (
        size * torch.randn(PROBED_IMAGES, width, generator=generator, device="cpu")
        for _ in range(2)
    )
    replaced = torch.rand(x.shape, generator=generator, device="cpu") < 0.5
    if like is None:
        return x, other, replaced
    return x.to(like), other.to(like), replaced.to(like.device)


def _equal(a: Tensor, b: Tensor, rtol: float = 2e-3, atol: float = 0.0) -> bool:
    """Up to the rounding of half precision; NaN equals NaN."""
    return bool(torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True).all())


def tensors_of(activation: Function | None) -> Iterator[Tensor]:
    """The parameters and buffers of floating-point numbers, if there are any."""
    if isinstance(activation, nn.Module):
        for tensor in chain(activation.parameters(), activation.buffers()):
            if tensor.is_floating_point():
                yield tensor


def forward_of(activation: Function) -> Callable[[Tensor], Any]:
    """The function without its hooks and, if `torch.compile` wrapped it, without its compiler."""
    activation = getattr(activation, "_orig_mod", activation)
    if not isinstance(activation, nn.Module):
        return activation
    if any(tensor.is_inference() for tensor in tensors_of(activation)):
        activation = deepcopy(activation)  # autograd refuses tensors made in inference mode
    return activation.forward
