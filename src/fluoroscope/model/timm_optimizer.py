"""Optimizers of timm by name, and the check of their arguments."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info
from torch.optim import Optimizer

from fluoroscope.choices import ADAMW
from fluoroscope.errors import InputError, first_sentence, nearest, shown

# Set by other keys of `optimizer`, or for each parameter group.
BY_OTHER_KEYS = {"lr": "optimizer.lr", "weight_decay": "optimizer.weight_decay"}
# The last two are for graphs of CUDA and for derivatives of steps, of which there are none here.
SET_ELSEWHERE = {"params", *BY_OTHER_KEYS, "capturable", "differentiable"}


def make_optimizer(
    name: str, groups: list[dict], lr: float, args: Mapping[str, Any], fused: bool = False
) -> Optimizer:
    """The optimizer that timm calls `name`, with timm's defaults.

    Args:
        groups: parameter groups, each with its `lr` and `weight_decay`.
        lr: default of the optimizer, which some compare with the rate of a group.
        args: further arguments, which `check_optimizer` has checked.
        fused: use one kernel per step, if the optimizer has one.
    """
    fusing = {"fused": fused} if "fused" in _arguments(name) else {}
    return create_optimizer_v2(groups, name, lr=lr, **{**fusing, **args})


def check_optimizer(name: str, args: Mapping[str, Any]) -> None:
    """Refuse an optimizer that cannot be made here, and arguments that it does not take.

    Raises:
        InputError: names the key.
    """
    if get_optimizer_info(name).second_order:
        raise InputError(
            f"optimizer.name={name} needs second derivatives of the loss, which this training does "
            "not compute; choose another optimizer"
        )
    known = _arguments(name)
    for key in args:
        if key in BY_OTHER_KEYS:
            raise InputError(f"optimizer.args.{key}: set {BY_OTHER_KEYS[key]} instead")
        if key not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise InputError(
                f"optimizer.args.{key}: {name} does not take it (its arguments: {takes})"
                f"{nearest(key, known)}"
            )
    try:
        _make_trial(name, args)
    except Exception as error:
        reason = first_sentence(error)
        raise InputError(f"optimizer.args={shown(dict(args))} of {name}: {reason}") from None


def _arguments(name: str) -> list[str]:
    """Names of the arguments that `optimizer.args` can hold.

    Raises:
        InputError: the optimizer is of a package that is not installed, or needs a GPU.
    """
    try:
        kind = get_optimizer_class(name, bind_defaults=False)
    except (ImportError, AssertionError) as error:
        raise InputError(
            f"optimizer.name={name}: {first_sentence(error)}; choose another optimizer"
        ) from None
    return [key for key in inspect.signature(kind).parameters if key not in SET_ELSEWHERE]


def _make_trial(name: str, args: Mapping[str, Any]) -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(3, 2))], "lr": 1e-3, "weight_decay": 0.0}]
    if name == ADAMW:
        torch.optim.AdamW(groups, **args)
    else:
        make_optimizer(name, groups, 1e-3, args)
