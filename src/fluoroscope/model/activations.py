"""Activations by name: the one key that a comparison of heads varies."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from fluoroscope.errors import InputError, check_choice, nearest

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softsign": nn.Softsign,
    "relu6": nn.ReLU6,
    "identity": nn.Identity,
}


def make_activation(name: str, **args: Any) -> nn.Module:
    """The elementwise activation `name` with PyTorch's argument names and defaults.

    Raises:
        InputError: an unknown name, an argument that this activation does not take, or a value
            that it refuses.
    """
    check_choice("head.activation", name, ACTIVATIONS)
    # Identity swallows every argument, and PReLU's placement belongs to the trainer.
    known = set() if name == "identity" else set(inspect.signature(ACTIVATIONS[name]).parameters)
    known -= {"device", "dtype"}
    for key in args:
        if key not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise InputError(
                f"head.activation_args.{key}: {name} does not take it "
                f"(its arguments: {takes}){nearest(key, known)}"
            )
    try:
        return ACTIVATIONS[name](**args)
    except (TypeError, ValueError) as error:
        raise InputError(f"head.activation_args of {name}: {error}") from None
