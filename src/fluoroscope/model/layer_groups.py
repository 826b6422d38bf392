"""Parameter groups by the depth of a layer, for a learning rate that falls with it."""

import math
from collections.abc import Collection

from timm.optim import param_groups_layer_decay
from torch import nn

from fluoroscope.choices import PROPER_SHARE
from fluoroscope.errors import InputError


def layer_groups(
    network: nn.Module,
    exempt: Collection[str],
    lr: float,
    weight_decay: float,
    layer_decay: float,
) -> list[dict]:
    """The groups of a backbone, see `optimizer.parameter_groups`.

    Args:
        network: a network of timm.
        exempt: names of the parameters without weight decay, besides those with one dimension.
        lr: learning rate of the last layer.

    Raises:
        InputError: `layer_decay` is out of range, or timm cannot split this network into layers.
    """
    PROPER_SHARE.check("optimizer.layer_decay", layer_decay)
    if not hasattr(network, "group_matcher"):
        raise InputError(
            "optimizer.layer_decay needs a timm backbone that can be split into layers; "
            f"{type(network).__name__} cannot, so set it to null"
        )
    groups: dict[str, dict] = {}
    parts = param_groups_layer_decay(network, weight_decay, exempt, layer_decay=layer_decay)
    for part in parts:
        depth = round(math.log(part["lr_scale"], layer_decay))
        name = f"backbone/layer_{depth:02d}/{'decay' if part['weight_decay'] else 'no_decay'}"
        # timm makes two groups per layer even without weight decay; names must be unique.
        group = groups.setdefault(name, {"params": [], "weight_decay": part["weight_decay"]})
        group["params"] += part["params"]
        group |= {"lr": lr * part["lr_scale"], "name": name}
    return list(groups.values())
