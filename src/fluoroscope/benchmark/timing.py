"""Seconds of a fit taken from inside it, and ratios of them taken in pairs."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch


class Instant(NamedTuple):
    """Of two clocks, which only differences are read from."""

    wall_s: float
    cpu_s: float


class Block(NamedTuple):
    """One timed fit of one arm."""

    step_s: float  # mean over the timed optimizer steps
    end_s: float  # from the end of the last batch to the end of training
    step_cpu_s: float  # processor time of this process, all threads


class Spread(NamedTuple):
    """Median and quartiles over the rounds."""

    median: float
    low: float
    high: float


class Clock(pl.Callback):
    """Times a fit of one epoch; must be the last callback.

    A step lasts from the end of a batch to the end of the next, so that whatever happens between
    two batches is in it. The timed ones are those after `warmup`, to the end of the epoch.

    Args:
        warmup: optimizer steps before the clock starts.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self._started = self._stopped = Instant(0.0, 0.0)
        self.block = Block(0.0, 0.0, 0.0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if i + 1 == self.warmup * trainer.accumulate_grad_batches:
            self._started = now(pl_module.device)
        elif i + 1 == trainer.num_training_batches:
            self._stopped = now(pl_module.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        end = now(pl_module.device)
        steps = trainer.global_step - self.warmup
        first, last = self._started, self._stopped
        self.block = Block(
            step_s=(last.wall_s - first.wall_s) / steps,
            end_s=end.wall_s - last.wall_s,
            step_cpu_s=(last.cpu_s - first.cpu_s) / steps,
        )


def now(device: torch.device) -> Instant:
    """The time when all that the device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Instant(time.perf_counter(), time.process_time())


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated.

    >>> spread([4.0, 1.0, 2.0])
    Spread(median=2.0, low=1.5, high=3.0)
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def step_ratio(arm: Sequence[Block], off: Sequence[Block]) -> Spread:
    """Of the time of a step, arm / off of the same round."""
    return spread([a.step_s / o.step_s for a, o in zip(arm, off, strict=True)])


def step_cpu_ratio(arm: Sequence[Block], off: Sequence[Block]) -> Spread:
    """As `step_ratio`, of the processor time of this process."""
    return spread([a.step_cpu_s / o.step_cpu_s for a, o in zip(arm, off, strict=True)])


def epoch_ratio(arm: Sequence[Block], off: Sequence[Block], steps: int) -> Spread:
    """Of the time of an epoch of so many steps with what happens at its end."""

    def epoch_s(block: Block) -> float:
        return steps * block.step_s + block.end_s

    return spread([epoch_s(a) / epoch_s(o) for a, o in zip(arm, off, strict=True)])


def extra_end_ms(arm: Sequence[Block], off: Sequence[Block]) -> Spread:
    """Milliseconds that the end of an epoch takes longer, arm - off of the same round."""
    return spread([1e3 * (a.end_s - o.end_s) for a, o in zip(arm, off, strict=True)])
