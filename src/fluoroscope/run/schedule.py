"""The learning rate of a resumed run, whose length or steps per epoch may have changed."""

import math
from typing import Any

import pytorch_lightning as pl

from fluoroscope.run.patience import Patience
from fluoroscope.run.resume import Start


def follow(trainer: pl.Trainer, start: Start) -> None:
    """Continue the learning rate's schedule at the share of `trainer.max_epochs` that is done.

    Lightning counts optimizer steps. If an epoch has other steps than before (another batch size,
    limit, accumulation or number of processes), its count is no share of the run. The schedule
    itself is that of a run that had the present `trainer.max_epochs` from its start; where it
    continues is printed.
    """
    schedule: Any = trainer.lr_scheduler_configs[0].scheduler
    groups, before = schedule.optimizer.param_groups, schedule.get_last_lr()[0]
    offset = _steps(trainer, start) - start.step
    schedule.lr_lambdas = [_moved(factor, offset) for factor in schedule.lr_lambdas]
    for group, lr, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = lr * factor(schedule.last_epoch)
    schedule._last_lr = [group["lr"] for group in groups]
    if trainer.is_global_zero:
        length = f"trainer.max_epochs={trainer.max_epochs} of {_epoch_steps(trainer)} steps"
        print(_describe(before, groups[0]["lr"], length))


def _steps(trainer: pl.Trainer, start: Start) -> int:
    """Optimizer steps of the finished part, if all its epochs were like the next one."""
    of_part = math.ceil(start.batches / trainer.accumulate_grad_batches)
    return start.epochs * _epoch_steps(trainer) + of_part


def _epoch_steps(trainer: pl.Trainer) -> int:
    return math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)


def _moved(factor: Any, offset: int) -> Any:
    return lambda step: factor(step + offset)


def _describe(before: float, now: float, length: str) -> str:
    line = f"the learning rate continues at {now:.3g}"
    if math.isclose(before, now, rel_tol=1e-3, abs_tol=1e-12):
        return line
    return f"{line}, not at {before:.3g}: its schedule spans {length} now"


def nothing_left(trainer: pl.Trainer) -> str:
    """Why a resumed run trains no further, and which key to raise."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for stop in (c for c in callbacks if isinstance(c, Patience) and c.is_exhausted):
        return f"the run stopped after {stop.describe()}; raise run.patience to train on"
    return (
        f"the run has trained its {trainer.current_epoch} epochs; raise trainer.max_epochs to "
        "train on"
    )
