"""How fast the checkpoint and the exported file are, measured in turn."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np

from fluoroscope.export.calibrated_network import Run

BATCHES = (1, 16)
ROUNDS, SECONDS = (3, 25), 3.0  # the fewest and the most rounds; of a batch size in all


class Speed(NamedTuple):
    """Images per second, the median of the rounds."""

    batch: int
    checkpoint: float
    exported: float


def measure(
    checkpoint: Run,
    exported: Run,
    images: np.ndarray,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Speed]:
    """Run both on the same images, one after the other in each round, after one without a clock.

    Args:
        images: uint8 [N, 1, S, S], repeated if a batch needs more.
    """
    return [_measure(checkpoint, exported, _batch(images, size), clock) for size in BATCHES]


def _batch(images: np.ndarray, size: int) -> np.ndarray:
    return np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))


def _measure(
    checkpoint: Run, exported: Run, batch: np.ndarray, clock: Callable[[], float]
) -> Speed:
    for run in (checkpoint, exported):
        run(batch)
    spent: list[tuple[float, float]] = []
    start = clock()
    least, most = ROUNDS
    while len(spent) < least or (len(spent) < most and clock() - start < SECONDS):
        before = clock()
        checkpoint(batch)
        between = clock()
        exported(batch)
        spent.append((between - before, clock() - between))
    rates = (len(batch) / median(times) for times in zip(*spent, strict=True))
    return Speed(len(batch), *rates)
