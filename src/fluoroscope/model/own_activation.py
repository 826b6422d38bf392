"""An activation of the user's own: a class, a factory or a function named by an import path."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fluoroscope.errors import InputError, first_sentence, shown
from fluoroscope.model.activations import check_arguments
from fluoroscope.own_code import imported

KEY = "head.activation"
KINDS = "an nn.Module class, a function that returns such a module, or a function of a tensor"
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


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
            raise InputError(f"{KEY}={path} must be {KINDS}; it is a {type(found).__name__} object")
        elif _is_function_of_tensor(found, args):
            return FunctionActivation(found, args)
        return _made(path, found, args)


def _check_class(path: str, found: type) -> None:
    if issubclass(found, torch.autograd.Function):
        raise InputError(
            f"{KEY}={path} is a torch.autograd.Function; name a function or an nn.Module that "
            f"calls {found.__name__}.apply"
        )
    if not issubclass(found, nn.Module):
        raise InputError(f"{KEY}={path} must be {KINDS}; it is another class")


def _is_function_of_tensor(found: Callable[..., Any], args: Mapping[str, Any]) -> bool:
    """Whether arguments are lacking for a factory, so that the first must be the tensor."""
    signature = _signature(found)
    if signature is None:  # a function of PyTorch written in C++
        return True
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if kinds[:1] == [inspect.Parameter.VAR_POSITIONAL]:  # a decorator hides the arguments
        return True
    return not _accepts(signature, **args) and _accepts(signature, None, **args)


def _accepts(signature: inspect.Signature, *values: Any, **args: Any) -> bool:
    try:
        signature.bind(*values, **args)
    except TypeError:
        return False
    return True


def _made(path: str, found: Callable[..., Any], args: Mapping[str, Any]) -> nn.Module:
    signature = _signature(found)
    if signature is not None:
        _check_signature(path, signature, args)
    try:
        made = found(**args)
    except (Exception, SystemExit) as error:
        reason = first_sentence(error) if isinstance(error, Exception) else "it exits"
        raise InputError(f"head.activation_args of {path}: {reason}") from None
    if not isinstance(made, nn.Module):
        raise InputError(f"{KEY}={path} must be {KINDS}; it returned a {type(made).__name__}")
    return made


def _check_signature(path: str, signature: inspect.Signature, args: Mapping[str, Any]) -> None:
    parameters = signature.parameters.values()
    if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        check_arguments(path, args, [p.name for p in parameters if p.kind in BY_NAME])
    for parameter in parameters:
        lacks = parameter.default is parameter.empty and parameter.name not in args
        if lacks and parameter.kind in BY_NAME:
            raise InputError(
                f"head.activation_args: {path} needs {shown(parameter.name)}; add "
                f"head.activation_args.{parameter.name}=..."
            )


def _signature(found: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(found)
    except (TypeError, ValueError):
        return None
