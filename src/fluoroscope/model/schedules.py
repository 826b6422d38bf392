"""Learning rates by optimizer step other than the cosine, which is in `model.optimizer`."""

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Factor = Callable[[int], float]  # of each group's learning rate, by step; 0 is the first


def make_schedule(
    optimizer: Optimizer,
    warmup_frac: float,
    total_steps: int,
    name: str,
    milestones: Sequence[float] = (),
    gamma: float = 1.0,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> LambdaLR:
    """A schedule whose highest learning rate is that of each parameter group.

    Args:
        warmup_frac: share of the steps during which the rate rises, in [0, 1).
        name: `constant`, `step` or `one_cycle`.
        milestones, gamma: of `step`, see `stepwise`.
        div_factor, final_div_factor: of `one_cycle`, see `one_cycle`.
    """
    if name == "one_cycle":
        top = warmup_frac * total_steps - 1
        return LambdaLR(optimizer, one_cycle(top, total_steps, div_factor, final_div_factor))
    after = stepwise(total_steps, milestones, gamma) if name == "step" else constant
    return LambdaLR(optimizer, warmed_up(after, int(warmup_frac * total_steps)))


def constant(step: int) -> float:
    return 1.0


def warmed_up(after: Factor, warmup_steps: int) -> Factor:
    """(t + 1) / warmup_steps at the steps t < warmup_steps; `after` from then on."""
    return lambda step: (step + 1) / warmup_steps if step < warmup_steps else after(step)


def stepwise(total_steps: int, milestones: Sequence[float], gamma: float) -> Factor:
    """A drop to the share gamma at each milestone that has been reached.

    Args:
        milestones: shares of all steps, in (0, 1).
    """
    return lambda step: gamma ** sum(step / total_steps >= milestone for milestone in milestones)


def one_cycle(top: float, total_steps: int, div_factor: float, final_div_factor: float) -> Factor:
    """Half a cosine up from 1 / div_factor, and one down to 1 / (div_factor final_div_factor).

    Args:
        top: the step of the highest rate, which may lie between two steps. If it is not above 0,
            the rate only falls.

    Source: L. N. Smith and N. Topin, Super-Convergence, 2018; the phases are those of
        `torch.optim.lr_scheduler.OneCycleLR`, whose momentum is not followed.
    """
    low = 1 / div_factor

    def factor(step: int) -> float:
        if 0 < top >= step:
            return _between(low, 1.0, step / top)
        return _between(1.0, low / final_div_factor, (step - top) / (total_steps - 1 - top))

    return factor


def _between(start: float, end: float, progress: float) -> float:
    """The value of half a cosine; `end` from a progress of 1 on."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
