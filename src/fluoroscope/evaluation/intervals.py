"""95 % intervals over patients for each kind of number.

The percentiles of a bootstrap suit a mean of many images. They fail where a small sample meets a
limit: 12 of 12 right gives 1 in every draw. So each kind has the interval that holds there too.
Arrays: G patients, B draws, S quantities.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv
from scipy.stats import t

from fluoroscope.evaluation.contents import LEVEL, UNKNOWN, Estimate
from fluoroscope.statistics import Floats, logit_bounds

TAIL = (1 - LEVEL) / 2


def by_percentiles(value: float, draws: ArrayLike) -> Estimate:
    """Interval of a mean or a count from its values in the draws [B]; NaN draws do not count."""
    known = _known(draws)
    if math.isnan(value) or not len(known):
        return UNKNOWN
    low, high = np.quantile(known, [TAIL, 1 - TAIL])
    return Estimate(value, min(float(low), value), max(float(high), value))


def by_distance(value: float, draws: Floats) -> Estimate:
    """Interval of a distance, which chance alone puts above zero.

    The lower end takes off what chance can add, so that it is 0 unless a distance is shown. The
    draws exceed the value as much as the value exceeds the truth; so the upper end is reflected.

    Args:
        draws: [B, 2], the distance in each draw, and that between the draw and the sample.

    Source: basic bootstrap: A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application
        (1997), section 2.4; the lower end: the triangle inequality.
    """
    known = draws[~np.isnan(draws).any(1)]
    if math.isnan(value) or not len(known):
        return UNKNOWN
    by_chance = float(np.quantile(known[:, 1], 1 - TAIL))
    reflected = 2 * value - float(np.quantile(known[:, 0], TAIL))
    return Estimate(value, max(0.0, value - by_chance), max(value, reflected))


def by_logit(value: float, draws: ArrayLike, fewest: int, patients: int) -> Estimate:
    """Interval of a score in [0, 1] that is no mean of images, from its spread in the draws [B].

    Args:
        fewest: patients of the rarer class, see `statistics.logit_bounds`.
        patients: G.
    """
    known = _known(draws)
    if math.isnan(value) or len(known) < 2:
        return UNKNOWN
    sd = float(known.std(ddof=1))
    return Estimate(value, *logit_bounds(value, sd, patients - 1, fewest, LEVEL))


def _known(draws: ArrayLike) -> Floats:
    values = np.asarray(draws, float)
    return values[~np.isnan(values)]


@dataclass(frozen=True)
class Shares:
    """Shares and the bounds of their intervals, each [S]."""

    value: Floats
    low: Floats
    high: Floats

    def at(self, place: int) -> Estimate:
        return Estimate(float(self.value[place]), float(self.low[place]), float(self.high[place]))


def shares(part: Floats, whole: Floats, level: float = LEVEL) -> Shares:
    """Shares `part.sum(0) / whole.sum(0)` over patients; all are NaN where `whole` is 0.

    The interval is the exact one for independent images (Clopper and Pearson), with as many images
    as the spread over patients is worth: fewer than there are if those of a patient resemble each
    other. If all or none are right there is no spread, and each patient counts as one image.

    Args:
        part, whole: images of each patient [G, S].
        level: coverage in (0, 1).

    Source: E. L. Korn, B. I. Graubard, Confidence intervals for proportions with small expected
        number of positive counts estimated from survey data, Survey Methodology 24 (1998).
    """
    size, patients, tail = whole.sum(0), (whole > 0).sum(0), (1 - level) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        value = part.sum(0) / size
        worth = np.where((value > 0) & (value < 1), _worth(part, whole, value, tail), patients)
        low = betaincinv(value * worth, worth - value * worth + 1, tail)
        high = betaincinv(value * worth + 1, worth - value * worth, 1 - tail)
    low, high = np.where(value == 0, 0.0, low), np.where(value == 1, 1.0, high)
    unknown = size == 0
    return Shares(*(np.where(unknown, math.nan, x) for x in (value, low, high)))


def _worth(part: Floats, whole: Floats, value: Floats, tail: float) -> Floats:
    """The number of independent images that vary as much as these patients [S]; at most theirs."""
    size, patients = whole.sum(0), (whole > 0).sum(0)
    residual = part - value * whole
    variance = patients / np.maximum(patients - 1, 1) * (residual**2).sum(0) / size**2
    certainty = t.isf(tail, np.maximum(size - 1, 1)) / t.isf(tail, np.maximum(patients - 1, 1))
    return np.clip(value * (1 - value) / variance * certainty**2, 1, size)


def ratio(over: Estimate, under: Estimate) -> Estimate:
    """The ratio of two shares and its interval; infinity for a share above 0 over 0.

    It takes the two as independent: they are of positive and of negative images.

    Source: MOVER-R: R. G. Newcombe, Confidence intervals for ratios and products of two
        independent quantities, Statistical Methods in Medical Research 25 (2016).
    """
    if any(math.isnan(end) for end in (*over, *under)) or over.value == under.value == 0:
        return UNKNOWN
    value = over.value / under.value if under.value else math.inf
    upside_down = _ratio_low(under, over)
    return Estimate(value, _ratio_low(over, under), 1 / upside_down if upside_down else math.inf)


def _ratio_low(over: Estimate, under: Estimate) -> float:
    product = over.value * under.value
    a, b = over.low * (2 * over.value - over.low), under.high * (2 * under.value - under.high)
    root = product + math.sqrt(max(0.0, product**2 - a * b))
    return a / root if root else 0.0


def weighted_difference(a: Estimate, b: Estimate, of_a: float, of_b: float) -> Estimate:
    """`of_a * a - of_b * b` for two independent shares and weights of at least 0.

    Source: MOVER: G. Y. Zou, A. Donner, Construction of confidence limits about effect measures,
        Statistics in Medicine 27 (2008).
    """
    value = of_a * a.value - of_b * b.value
    down = math.hypot(of_a * (a.value - a.low), of_b * (b.high - b.value))
    up = math.hypot(of_a * (a.high - a.value), of_b * (b.value - b.low))
    return Estimate(value, value - down, value + up)


def transformed(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    """The estimate of a monotone function of a quantity: its ends are those of the quantity."""
    value, *ends = (function(x) for x in estimate)
    return Estimate(value, min(ends), max(ends))


def complement(share: float) -> float:
    return 1 - share
