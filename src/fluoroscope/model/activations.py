"""Activations by name: the one key that a comparison of heads varies.

To add an activation, add a line to `ACTIVATIONS`. PyTorch is imported only when an activation is
built, so that the configuration can check names and arguments before that.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from fluoroscope.errors import InputError, check_choice, nearest

if TYPE_CHECKING:
    from torch import nn


class Activation(NamedTuple):
    """The class of an activation and the names of the arguments that a user may set."""

    path: str  # `module:class`
    arguments: tuple[str, ...] = ()


# PReLU's arguments device and dtype are omitted: the trainer sets them.
ACTIVATIONS = {
    "relu": Activation("torch.nn:ReLU", ("inplace",)),
    "leaky_relu": Activation("torch.nn:LeakyReLU", ("negative_slope", "inplace")),
    "prelu": Activation("torch.nn:PReLU", ("num_parameters", "init")),
    "elu": Activation("torch.nn:ELU", ("alpha", "inplace")),
    "selu": Activation("torch.nn:SELU", ("inplace",)),
    "celu": Activation("torch.nn:CELU", ("alpha", "inplace")),
    "gelu": Activation("torch.nn:GELU", ("approximate",)),
    "silu": Activation("torch.nn:SiLU", ("inplace",)),
    "mish": Activation("torch.nn:Mish", ("inplace",)),
    "hardswish": Activation("torch.nn:Hardswish", ("inplace",)),
    "softplus": Activation("torch.nn:Softplus", ("beta", "threshold")),
    "tanh": Activation("torch.nn:Tanh"),
    "sigmoid": Activation("torch.nn:Sigmoid"),
    "softsign": Activation("torch.nn:Softsign"),
    "relu6": Activation("torch.nn:ReLU6", ("inplace",)),
    "identity": Activation("torch.nn:Identity"),
}


def check_activation(name: str, arguments: Iterable[str] = ()) -> None:
    """Refuse an unknown activation or argument, without importing PyTorch.

    Raises:
        InputError: an unknown name, or an argument that this activation does not take.
    """
    check_choice("head.activation", name, ACTIVATIONS)
    known = ACTIVATIONS[name].arguments
    for key in arguments:
        if key not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise InputError(
                f"head.activation_args.{key}: {name} does not take it "
                f"(its arguments: {takes}){nearest(key, known)}"
            )


def make_activation(name: str, **args: Any) -> "nn.Module":
    """The elementwise activation `name` with PyTorch's argument names and defaults.

    Raises:
        InputError: as `check_activation`, and for a value that the activation refuses.
    """
    check_activation(name, args)
    module, _, kind = ACTIVATIONS[name].path.partition(":")
    try:
        activation: nn.Module = getattr(import_module(module), kind)(**args)
    except (TypeError, ValueError) as error:
        raise InputError(f"head.activation_args of {name}: {error}") from None
    return activation
