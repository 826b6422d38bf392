"""Activations by name: the one key that a comparison of heads varies.

A name is in `ACTIVATIONS` or is an import path. PyTorch is imported only when one is built.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fluoroscope.errors import InputError, check_choice, nearest
from fluoroscope.model.activation_table import ACTIVATIONS
from fluoroscope.own_code import check_findable, is_path

if TYPE_CHECKING:
    from torch import nn


def check_activation(name: str, arguments: Iterable[str] = ()) -> None:
    """Refuse an unknown activation or argument, without importing PyTorch or the user's own code.

    Raises:
        InputError: an unknown name, or an argument that this activation does not take.
    """
    if name not in ACTIVATIONS and is_path(name):
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
        InputError: as `check_activation` and `make_own`, and for a value that is refused.
    """
    check_activation(name, args)
    if name not in ACTIVATIONS:
        from fluoroscope.model.own_activation import make_own  # PyTorch is slow to import

        return make_own(name, args)
    module, _, kind = ACTIVATIONS[name].path.partition(":")
    try:
        activation: nn.Module = getattr(import_module(module), kind)(**args)
    except (TypeError, ValueError) as error:
        raise InputError(f"head.activation_args of {name}: {error}") from None
    return activation
