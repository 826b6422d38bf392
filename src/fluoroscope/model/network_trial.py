"""Try a network whose keys only timm can check, before anything else takes time."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone, make_backbone


def try_network(
    name: str,
    image_px: int,
    grad_checkpointing: bool = False,
    args: Mapping[str, Any] | None = None,
    **_: Any,
) -> Backbone:
    """The network without memory for its weights, which takes a moment, to refuse keys early.

    Raises:
        InputError: as `make_backbone`, for keys other than those of the weights.
    """
    make = partial(
        make_backbone,
        *(name, "none"),
        grad_checkpointing=grad_checkpointing,
        args=args,
        image_px=image_px,
    )
    try:
        with torch.device("meta"):
            return make()
    except InputError:  # PyTorch may lack an operation there, so the real network decides
        return make()
