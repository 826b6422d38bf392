"""The moving average of the weights, `optimizer.ema_decay`, which warms up."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Average = Callable[[Any, Any, Any], None]


def warmed_up(decay: float) -> Average:
    """The exponential moving average, whose decay at update t is min(decay, (1 + t) / (10 + t)).

    Without the warm-up, a run of fewer than 1 / (1 - decay) steps would evaluate nearly its initial
    weights. Constants stay as they are, and no host waits for the device.

    Source: TensorFlow, `tf.train.ExponentialMovingAverage`, argument `num_updates`.
    """

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        if not averages[0].is_floating_point():  # counters, such as those of batch norm
            torch._foreach_copy_(averages, current)
            return
        done = updates.double()
        share = 1 - ((1 + done) / (10 + done)).clamp(max=decay)
        moved = torch._foreach_sub(current, averages)
        torch._foreach_mul_(moved, share.to(averages[0].dtype))
        torch._foreach_add_(averages, moved)

    return update


def reached_decay(decay: float, steps: int) -> float:
    """The decay at the last of the steps."""
    return min(decay, (1 + steps) / (10 + steps))
