"""The optimizer with its parameter groups, and the learning rate of every step."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fluoroscope.choices import ADAMW, COSINE
from fluoroscope.errors import InputError
from fluoroscope.model.layer_groups import layer_groups
from fluoroscope.model.schedules import make_schedule
from fluoroscope.model.timm_optimizer import make_optimizer


class Descent(NamedTuple):
    """An optimizer and its schedule, by the keys of `optimizer` and `schedule`; still unbound.

    Attributes:
        lr, backbone_lr, weight_decay, layer_decay: see `parameter_groups`.
        warmup_frac: share of the optimizer steps during which the learning rate rises.
        name, args: an optimizer of timm, and further arguments of it.
        schedule: `name` and arguments, see `schedules.make_schedule`; None is the cosine.
    """

    lr: float = 1e-3
    backbone_lr: float = 1e-4
    weight_decay: float = 1e-2
    layer_decay: float | None = None
    warmup_frac: float = 0.1
    name: str = ADAMW
    args: Mapping[str, Any] | None = None
    schedule: Mapping[str, Any] | None = None

    def bind(
        self, backbone: nn.Module, head: nn.Module, steps: int, fused: bool
    ) -> tuple[Optimizer, LambdaLR]:
        """The optimizer of these modules, and the learning rate of each of its steps.

        Args:
            fused: one kernel per step, if the optimizer has one.
        """
        groups = parameter_groups(
            *(backbone, head, self.lr, self.backbone_lr),
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
        )
        args: Any = self.args or {}
        if self.name == ADAMW:
            optimizer: Optimizer = torch.optim.AdamW(groups, **{"fused": fused, **args})
        else:
            optimizer = make_optimizer(self.name, groups, self.lr, args, fused)
        if self.schedule is None or self.schedule["name"] == COSINE:
            return optimizer, warmup_cosine(optimizer, int(self.warmup_frac * steps), steps)
        return optimizer, make_schedule(optimizer, self.warmup_frac, steps, **self.schedule)


def parameter_groups(
    backbone: nn.Module,
    head: nn.Module,
    lr: float,
    backbone_lr: float,
    *,
    weight_decay: float,
    layer_decay: float | None = None,
) -> list[dict]:
    """Parameter groups; every trainable parameter is in exactly one, and none is empty.

    Each group has `params, lr, weight_decay, name`. Weight decay is 0 for norms, biases (1-d), all
    parameters of the head's activation, and those that the network exempts (position embeddings).
    Names are `head/decay`, `head/no_decay` and the same for `backbone`; with `layer_decay` they are
    `backbone/layer_03/decay`, with layers numbered from the head (00) to the stem.

    Args:
        backbone: a timm network, or a module around it that adds no parameters.
        head: the layers after the backbone.
        lr: learning rate of the head.
        backbone_lr: learning rate of the backbone; with `layer_decay`, of its last layer.
        weight_decay: 0 puts every parameter in a group no_decay.
        layer_decay: factor in (0, 1) on the learning rate from each layer to the previous one.

    Raises:
        InputError: `layer_decay` is out of range, or timm cannot split this network into layers.
    """
    groups, network = _decay_groups(head, "head", lr, weight_decay), _network(backbone)
    if layer_decay is None:
        return groups + _decay_groups(network, "backbone", backbone_lr, weight_decay)
    exempt = _exempt_names(network)
    return groups + layer_groups(network, exempt, backbone_lr, weight_decay, layer_decay)


def _decay_groups(module: nn.Module, name: str, lr: float, weight_decay: float) -> list[dict]:
    groups = param_groups_weight_decay(
        module, weight_decay, no_weight_decay_list=_exempt_names(module)
    )
    return [
        {**group, "lr": lr, "name": f"{name}/{'decay' if group['weight_decay'] else 'no_decay'}"}
        for group in groups
    ]


def _network(backbone: nn.Module) -> nn.Module:
    """The timm network inside the backbone: its rules are written for its own parameter names.

    Raises:
        ValueError: the module around it adds parameters, which would not be trained.
    """
    # Check the class: the module of torch.compile forwards attributes, but prefixes the names.
    network = next((m for m in backbone.modules() if hasattr(type(m), "group_matcher")), backbone)
    if {*backbone.parameters()} != {*network.parameters()}:
        raise ValueError(f"{type(backbone).__name__} adds parameters to its timm network")
    return network


def _exempt_names(network: nn.Module) -> set[str]:
    own = (n for n, _ in network.named_parameters() if re.match(r"activations?\.", n))  # a head's
    return {*own, *getattr(network, "no_weight_decay", set)()}


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """A learning rate schedule by optimizer step: linear warm-up, then half a cosine.

    Step t (0 the first) uses each group's learning rate times
        (t + 1) / warmup_steps                               for t < warmup_steps,
        (1 + cos(pi (t - warmup) / (total - warmup))) / 2    up to total_steps,
        0                                                    after it.
    So the warm-up ends at 1 in step warmup_steps - 1, and the cosine starts at 1 in the next step.

    Raises:
        InputError: not 0 <= warmup_steps < total_steps.
    """
    if not 0 <= warmup_steps < total_steps:
        raise InputError(
            "the warm-up must be shorter than the run; "
            f"got {warmup_steps} of {total_steps} optimizer steps"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)
