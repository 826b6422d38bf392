"""An activation of the user's own: a class, a factory or a function named by an import path."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fluoroscope.errors import InputError, first_sentence, shown
from fluoroscope.model.activations import check_arguments
from fluoroscope.own_code import check_called, imported

KEY = "head.activation"
KINDS = "an nn.Module class, a function that returns such a module, or a function of a tensor"
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class FunctionActivation(nn.Module):
    """A plain function of a tensor, with fixed arguments, as a module."""

    def __init__(self, function: Callable[..., Tensor], arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.function, self.arguments = function, dict(arguments)

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z, **self.arguments)

    def extra_repr(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)


def make_own(path: str, args: Mapping[str, Any]) -> nn.Module:
    """Make the activation that a path names. Neither its module nor it changes the random state.

    Args:
        path: of a class, a factory or a function; `own_code.imported` decides whether it is
            trusted.
        args: of the class or the factory; of a function all but its first.

    Raises:
        InputError: as `own_code.imported`, or the object is none of these, or it does not take the
            arguments.
    """
    with torch.random.fork_rng(devices=[]):
        found = imported(KEY, path)
    if isinstance(found, type):
        _check_class(path, found)
    elif not callable(found) or isinstance(found, nn.Module):
        kind = type(found).__name__
        raise InputError(f"{KEY}={path} must be {KINDS}; it is an object of type {kind}")
    elif _is_function_of_tensor(found, args):
        _check_arguments(path, found, args, skip=1)
        return FunctionActivation(found, args)
    else:
        check_called(KEY, path)
    _check_arguments(path, found, args)
    with torch.random.fork_rng(devices=[]):
        return _called(path, found, args)


def _check_class(path: str, found: type) -> None:
    if issubclass(found, torch.autograd.Function):
        raise InputError(
            f"{KEY}={path} is a torch.autograd.Function; name a function or an nn.Module that "
            f"calls {found.__name__}.apply"
        )
    if not issubclass(found, nn.Module):
        raise InputError(f"{KEY}={path} must be {KINDS}; it is another class")


def _is_function_of_tensor(found: Callable[..., Any], args: Mapping[str, Any]) -> bool:
    """Whether the first argument is required and not given, so that it must be the tensor."""
    parameters = _parameters(found)
    if parameters is None:  # a function of PyTorch written in C++
        return True
    if not parameters or parameters[0].kind == inspect.Parameter.VAR_POSITIONAL:
        return bool(parameters)  # a decorator hides the arguments
    first = parameters[0]
    return first.kind in POSITIONAL and first.default is first.empty and first.name not in args


def _check_arguments(
    path: str, found: Callable[..., Any], args: Mapping[str, Any], skip: int = 0
) -> None:
    """Refuse arguments that are not taken, and that are needed and not given.

    Args:
        skip: number of the first arguments that are not given by name.
    """
    parameters = _parameters(found)
    if parameters is None:
        return
    named = [parameter for parameter in parameters[skip:] if parameter.kind in NAMED]
    if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters):
        check_arguments(path, args, [parameter.name for parameter in named])
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in args:
            raise InputError(
                f"head.activation_args: {path} needs {shown(parameter.name)}; add "
                f"head.activation_args.{parameter.name}=..."
            )


def _called(path: str, found: Callable[..., Any], args: Mapping[str, Any]) -> nn.Module:
    try:
        made = found(**args)
    except (Exception, SystemExit) as error:
        reason = first_sentence(error) if isinstance(error, Exception) else "it exits"
        raise InputError(f"head.activation_args of {path}: {reason}") from None
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise InputError(f"{KEY}={path} must be {KINDS}; it returned an object of type {kind}")
    return made


def _parameters(found: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """None if they are not known."""
    try:
        return list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return None
