"""What cannot be watched, refused before anything is hooked."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import nn

from fluoroscope.errors import InputError
from fluoroscope.instrument.discovery import KNOWN, is_candidate


def check_model(model: object) -> None:
    """Refuse what is not a network, or is one whose calls cannot be followed.

    Raises:
        InputError: says what to watch instead.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"watch needs a torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("watch cannot see into a scripted network; watch the one it was made from")
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise InputError(
            "watch cannot count in torch.nn.DataParallel, whose copies run in threads; watch its "
            ".module on one device, or use DistributedDataParallel"
        )
    if model._compiled_call_impl is not None:
        raise InputError(
            "watch cannot see into a network compiled by its own .compile(); use "
            "compiled = torch.compile(model) and watch(compiled)"
        )


def check_numbers(every_n_calls: object, tolerance: float) -> None:
    """Refuse what is not a whole number of at least 1, and a tolerance below 0.

    Raises:
        InputError: `every_n_calls must be a whole number of at least 1; got 0`.
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance must be at least 0; got {tolerance}")
    if not isinstance(every_n_calls, int) or every_n_calls < 1:
        raise InputError(
            f"every_n_calls must be a whole number of at least 1; got {every_n_calls!r}"
        )


def check_dims(dims: Mapping[str, object]) -> None:
    """Refuse what is no dimension of channels; dimension 0 holds the images.

    Raises:
        InputError: names the layer.
    """
    for name, dim in dims.items():
        if not isinstance(dim, int) or isinstance(dim, bool) or dim == 0:
            raise InputError(
                f"channel_dims: the dimension of {name!r} must be a whole number other than 0; got "
                f"{dim!r}"
            )


def check_patterns(patterns: Iterable[str], names: dict[nn.Module, str], key: str) -> None:
    """Refuse a pattern that no layer can have.

    Functions are known only once they were called: `layer1.*` and `layer1/relu` are accepted if
    there is a module `layer1`.

    Raises:
        InputError: names the pattern and the closest names.
    """
    patterns = list(patterns)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise InputError(f"{key} must be names of layers; got {patterns}")
    layers = [n for m, n in names.items() if type(m) in KNOWN or is_candidate(m)]
    callers = [f"{name or 'forward'}/" for name in names.values()]
    for pattern in patterns:
        of_function = f"{pattern.partition('/')[0]}/"
        if any(fnmatchcase(name, pattern.partition("#")[0]) for name in layers):
            continue
        if any(fnmatchcase(c, of_function) or fnmatchcase(c, pattern) for c in callers):
            continue
        near = get_close_matches(pattern, layers or list(names.values()), n=3, cutoff=0)
        raise InputError(
            f"{key}: {pattern!r} matches no activation of {_kind(names)}; closest names: "
            f"{', '.join(near)}"
        )


def _kind(names: dict[nn.Module, str]) -> str:
    return type(next(iter(names))).__name__
