"""How well a map agrees with the region of a finding, against chance and maps that see no film.

Arrays are `[S, S]`: `heat` not negative, `region` and `film` bool. Only places on the film count,
not the margin that makes it square.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fluoroscope.statistics import Floats, logit_interval

CENTRE_SPREAD = 0.25  # of the side, standard deviation of the centre prior


def pointing(heat: np.ndarray, region: np.ndarray, film: np.ndarray) -> float:
    """Whether the highest place of the map lies in the region: 1 or 0.

    Of several highest places it is the share in the region, so that a constant map scores `chance`.

    Source: J. Zhang and others, Top-down neural attention by excitation backprop, IJCV 126 (2018);
        here without a tolerance around the region.
    """
    values = heat[film]
    highest = values == values.max()
    return float(region[film][highest].mean())


def energy(heat: np.ndarray, region: np.ndarray, film: np.ndarray) -> float:
    """Share of the map's sum that lies in the region; `chance` for a map of zeros.

    Source: H. Wang and others, Score-CAM, CVPR workshops (2020), section 4.3.
    """
    values = heat[film].astype(float)
    total = values.sum()
    return float(values[region[film]].sum() / total) if total > 0 else chance(region, film)


def chance(region: np.ndarray, film: np.ndarray) -> float:
    """Share of the film that the region covers: the expected score of a random place."""
    return float(region[film].mean())


def centre_map(film: np.ndarray) -> np.ndarray:
    """A Gaussian on the middle of the film, the map of somebody who did not look."""
    rows, columns = (np.flatnonzero(film.any(axis=axis)) for axis in (1, 0))
    across, down = (
        np.exp(
            -(((np.arange(film.shape[0]) - places.mean()) / (CENTRE_SPREAD * len(places))) ** 2) / 2
        )
        for places in (columns, rows)
    )
    return np.outer(down, across).astype(np.float32)


def usual_places(
    regions: Sequence[np.ndarray], patients: Sequence[str]
) -> Iterator[np.ndarray | None]:
    """For each film, the mean of the regions of all other patients; None if there is none.

    The regions of a patient are taken from the sum of all: the time grows with the films alone.
    """
    total = np.asarray(sum(regions))
    of: dict[str, list[np.ndarray]] = {}
    for region, patient in zip(regions, patients, strict=True):
        of.setdefault(patient, []).append(region)
    for patient in patients:
        others = len(regions) - len(of[patient])
        yield (total - sum(of[patient])) / others if others else None


class Mean(NamedTuple):
    """A mean over films with its 95 % interval over patients; NaN bounds for one patient."""

    value: float
    low: float
    high: float


def mean_score(scores: ArrayLike, patients: Sequence[str]) -> Mean:
    """Mean of scores from 0 to 1 [N], symmetric on the logit scale; see `logit_interval`."""
    value, influence = _mean(scores, patients)
    if len(influence) < 2:
        return Mean(value, math.nan, math.nan)
    return Mean(value, *logit_interval(value, influence, len(influence)))


def mean_difference(
    scores: ArrayLike, others: ArrayLike, patients: Sequence[str], hits: bool = False
) -> Mean:
    """Mean of scores less other scores of the same films [N], paired by patient.

    Args:
        scores, others: of each film, 0 to 1.
        patients: of each film.
        hits: the scores are nearly all 0 or 1, so that a few patients may all agree by chance. The
            interval is then that of Agresti and Min: as if two more patients had been seen, one
            with no difference, one with half a difference of 1 and half a difference of -1.

    Source: A. Agresti and Y. Min, Simple improved confidence intervals for comparing matched
        proportions, Statistics in Medicine 24 (2005), with Student's t for few patients.
    """
    from scipy import stats

    value, influence = _mean(np.asarray(scores, dtype=float) - np.asarray(others), patients)
    count = len(influence)
    if count < 2:
        return Mean(value, math.nan, math.nan)
    middle, variance, size = value, float(influence.var(ddof=1)), count
    if hits:
        each, size = value + influence, count + 2
        middle = float(each.sum()) / size
        variance = float((each**2).sum() + 1) / size - middle**2
    half = stats.t.isf(0.025, count - 1) * math.sqrt(variance / size)
    return Mean(value, max(middle - half, -1.0), min(middle + half, 1.0))


def _mean(scores: ArrayLike, patients: Sequence[str]) -> tuple[float, Floats]:
    """The mean over films, and the influence of each patient on it [G]."""
    values = np.asarray(scores, dtype=float)
    names, of = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    mean = float(values.mean())
    sums = np.bincount(of, values - mean, len(names))
    return mean, len(names) * sums / len(values)


def rank_correlation(one: np.ndarray, other: np.ndarray, film: np.ndarray) -> float:
    """Spearman's correlation of two maps over the places of the film; NaN if one is constant."""
    from scipy import stats

    pair = [stats.rankdata(heat[film]) for heat in (one, other)]
    if min(np.ptp(ranks) for ranks in pair) == 0:
        return math.nan
    return float(np.corrcoef(*pair)[0, 1])
