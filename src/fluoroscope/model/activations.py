"""Activations by name: the one key that a comparison of heads varies.

A name is in `ACTIVATIONS`, or it is the import path of an activation of the user's own. PyTorch is
imported only when an activation is built, so that the configuration can check names and arguments
before that.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from fluoroscope.errors import InputError, check_choice, nearest
from fluoroscope.own_code import check_findable, is_path

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
    "hard_sigmoid": Activation("torch.nn:Hardsigmoid", ("inplace",)),
    "hard_mish": Activation("timm.layers.activations:HardMish", ("inplace",)),
    "gelu_tanh": Activation("timm.layers.activations:GELUTanh", ("inplace",)),
    "quick_gelu": Activation("timm.layers.activations:QuickGELU", ("inplace",)),
    "identity": Activation("torch.nn:Identity"),
}


def check_activation(name: str, arguments: Iterable[str] = ()) -> None:
    """Refuse an unknown activation or argument, without importing PyTorch or the user's own code.

    Raises:
        InputError: an unknown name, or an argument that this activation does not take.
    """
    if is_path(name):
        check_findable("head.activation", name)
    else:
        check_choice("head.activation", name, ACTIVATIONS)
        check_arguments(name, arguments, ACTIVATIONS[name].arguments)


def check_arguments(name: str, arguments: Iterable[str], known: Sequence[str]) -> None:
    """Refuse an argument that an activation does not take.

    Raises:
        InputError: `head.activation_args.alfa: elu does not take it (its arguments: alpha) ...`.
    """
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
        InputError: as `check_activation` and `make_own`, and for a value that the activation
            refuses.
    """
    check_activation(name, args)
    if is_path(name):
        from fluoroscope.model.own_activation import make_own  # PyTorch is slow to import

        return make_own(name, args)
    module, _, kind = ACTIVATIONS[name].path.partition(":")
    try:
        activation: nn.Module = getattr(import_module(module), kind)(**args)
    except (TypeError, ValueError) as error:
        raise InputError(f"head.activation_args of {name}: {error}") from None
    return activation
