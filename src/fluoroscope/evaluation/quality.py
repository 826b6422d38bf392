"""How good probabilities are as such: Brier score, log loss, calibration error, reliability.

Arrays: N images, B draws.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoroscope.evaluation.contents import Bin, Quality
from fluoroscope.evaluation.intervals import by_distance, by_percentiles, shares
from fluoroscope.evaluation.resampling import Ints, Patients
from fluoroscope.statistics import Floats
from fluoroscope.trained.calibration import SMALLEST

BINS = 15  # of equal width, as torchmetrics and Guo and others (2017) have them


class QualityDraws(NamedTuple):
    """Values in the draws, [B]; of the error also its distance from that of the sample, [B, 2]."""

    brier: Floats
    ece: Floats
    log_loss: Floats


def quality(
    probability: ArrayLike, truth: ArrayLike, rows: NDArray[np.bool_], patients: Patients
) -> tuple[Quality, QualityDraws]:
    """Scores of the probabilities of one label, and their values in the draws.

    Args:
        probability, truth: [n], of the images with a known label.
        rows: [N], which images these are.
    """
    p, y = np.asarray(probability, float), np.asarray(truth, float)
    ones, bins = np.ones_like(p), bin_of(p)
    images, positives, mass = (patients.cells(rows, bins, BINS, w) for w in (ones, y, p))
    squares = patients.per_patient(rows, (p - y) ** 2)
    losses = patients.per_patient(rows, log_losses(p, y))
    table = np.concatenate([squares, losses, images.sum(1, keepdims=True), mass - positives], 1)
    draws, own = (
        _scores(sums, table.sum(0)) for sums in (patients.sums(table), table.sum(0)[None])
    )
    brier, log_loss = (
        by_percentiles(float(value[0]), drawn)
        for value, drawn in ((own.brier, draws.brier), (own.log_loss, draws.log_loss))
    )
    ece = by_distance(float(own.ece[0, 0]), draws.ece)
    return Quality(brier, ece, log_loss, _reliability(images, positives, mass)), draws


def bin_of(probability: Floats) -> Ints:
    """Number of the bin of each probability; 1 lies in the last one."""
    edges = np.arange(1, BINS) / BINS
    return np.searchsorted(edges, probability, "right").astype(np.int64)


def log_losses(probability: Floats, truth: Floats) -> Floats:
    """Log loss of each image, in nats."""
    p = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return -np.log(np.where(truth == 1, p, 1 - p))


def _scores(sums: Floats, sample: Floats) -> QualityDraws:
    """From sums of squares, losses, images and excess of probability by bin.

    Args:
        sums: [B, 3 + BINS], of the draws.
        sample: [3 + BINS], of all patients.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        gaps, own = sums[:, 3:] / sums[:, 2:3], sample[3:] / sample[2]
        errors = np.abs(np.stack([gaps, gaps - own], 2)).sum(1)
        return QualityDraws(sums[:, 0] / sums[:, 2], errors, sums[:, 1] / sums[:, 2])


def _reliability(images: Floats, positives: Floats, mass: Floats) -> list[Bin]:
    observed, sizes = shares(positives, images), images.sum(0)
    return [
        Bin(
            k / BINS,
            (k + 1) / BINS,
            int(size),
            float(mass[:, k].sum() / size) if size else math.nan,
            observed.at(k),
        )
        for k, size in enumerate(sizes)
    ]
