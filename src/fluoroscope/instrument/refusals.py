"""What cannot be watched, refused before anything is hooked."""

from collections.abc import Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from fluoroscope.choices import is_number
from fluoroscope.errors import InputError
from fluoroscope.instrument.discovery import KNOWN, NAMES, is_candidate


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


def check_numbers(every: object, tolerance: Any, key: str = "every_n_calls") -> None:
    """Refuse what is not a whole number of at least 1, and a tolerance below 0.

    Raises:
        InputError: `every_n_calls must be a whole number of at least 1; got 0`.
    """
    if not (is_number(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance must be a number of at least 0; got {tolerance!r}")
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise InputError(f"{key} must be a whole number of at least 1; got {every!r}")


def check_layers(layers: object) -> tuple[str, ...]:
    """The patterns of one name or a list of names.

    Raises:
        InputError: it is neither, or empty.
    """
    patterns = (layers,) if isinstance(layers, str) else layers
    if not isinstance(patterns, Sequence | Set) or not all(isinstance(p, str) for p in patterns):
        raise InputError(f"layers must be a name of layers or a list of names; got {layers!r}")
    if not patterns:
        raise InputError("layers must name at least one layer; got none")
    return tuple(patterns)


def check_dims(dims: object) -> dict[str, int]:
    """The dimensions by name; dimension 0 holds the images.

    Raises:
        InputError: names the layer.
    """
    if not isinstance(dims, Mapping) or not all(isinstance(name, str) for name in dims):
        raise InputError(f"channel_dims must be a dict of dimensions by name; got {dims!r}")
    for name, dim in dims.items():
        if not isinstance(dim, int) or isinstance(dim, bool) or dim == 0:
            raise InputError(
                f"channel_dims: the dimension of {name!r} must be a whole number other than 0; got "
                f"{dim!r}"
            )
    return dict(dims)


def check_patterns(patterns: Iterable[str], names: dict[nn.Module, str], key: str) -> None:
    """Refuse a pattern that no layer can have.

    Which functions are called is not known before: `layer1.*` and `layer1/relu` are accepted if
    there is a module `layer1`, `layer1/rleu` is not.

    Raises:
        InputError: names the pattern and the closest names.
    """
    layers = [n for m, n in names.items() if type(m) in KNOWN or is_candidate(m)]
    functions = [f"{caller or 'forward'}/{name}" for caller in names.values() for name in NAMES]
    for pattern in patterns:
        base = pattern.partition("#")[0]
        if any(fnmatchcase(name, base) for name in (*layers, *functions)):
            continue
        near = get_close_matches(pattern, layers or list(names.values()), n=3, cutoff=0)
        raise InputError(
            f"{key}: {pattern!r} matches no activation of {_kind(names)}; closest names: "
            f"{', '.join(near)}"
        )


def _kind(names: dict[nn.Module, str]) -> str:
    return type(next(iter(names))).__name__
