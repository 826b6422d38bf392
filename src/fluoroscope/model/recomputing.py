"""Recompute a network's activations in the backward pass, which takes less memory."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.module_tracker import ModuleTracker

from fluoroscope.errors import InputError

_TRACKER = ModuleTracker()  # knows whether a backward pass is running


def recompute(network: Any, name: str, compiled: bool) -> None:
    """Keep only the inputs of each block of a timm network, and run the block again.

    Raises:
        InputError: timm cannot do this with the architecture.
    """
    try:
        network.set_grad_checkpointing(True)
    except (AssertionError, AttributeError):
        raise InputError(
            f"backbone.grad_checkpointing: timm cannot checkpoint {name}; set it to false, and if "
            "memory is short use a smaller data.batch_size"
        ) from None
    if compiled:  # compiled code does not update the statistics in the second pass
        return
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(partial(_hold, momentum=module.momentum))


def _hold(norm: _BatchNorm, inputs: tuple[Tensor], momentum: float | None) -> None:
    """Keep the second forward pass from updating the running statistics again."""
    norm.momentum = 0.0 if _TRACKER.is_bw else momentum
    if _TRACKER.is_bw and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.sub_(1)  # the second pass adds 1 again
