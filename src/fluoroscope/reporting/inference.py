"""Simultaneous intervals of differences over patients and seeds, and what would decide them.

Every seed's model scores every patient, so patients and seeds are crossed: a difference between
two activations varies with the patients, with the seeds and with their crossing (as in a two-way
analysis of variance without repetition). All differences of a study form one family: with 95 %
probability all of their intervals hold together. Arrays: J differences, S seeds, G patients.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fluoroscope.statistics import Floats

LEVEL = 0.95
POWER = 0.8  # four of five studies
DRAWS = 10_000  # the critical value then has a standard error of about 0.01
SPREAD = 0.5, 1.5  # bounds of the correction for skewness, which holds for small ones
MANY = 1_000_000  # more patients or seeds than anybody has
SAME = 1e-12  # scores that differ by less are equal up to rounding


@dataclass(frozen=True)
class Difference:
    """Scores of one activation minus those of the reference, on the same patients.

    Attributes:
        seeds: those that both have, [S]; empty for two ensembles, which stand for all (S = 1).
        values: differences of the AUROC by seed, [S].
        influence: differences of the patients' influences, [S, G]; G = 0 without predictions.
    """

    seeds: Sequence[int]
    values: Floats
    influence: Floats

    @cached_property
    def value(self) -> float:
        return float(self.values.mean()) if len(self.values) else math.nan

    @cached_property
    def of_patients(self) -> Floats:
        """How far each patient moves the difference, in standard errors' scale, [G].

        The sum of squares is the variance of the mean over patients.
        """
        return _scaled(self.influence.mean(0))

    @cached_property
    def of_seeds(self) -> Floats:
        """As `of_patients`, for the seeds [S]."""
        return _scaled(self.values)

    @cached_property
    def parts(self) -> "Parts":
        """Variance components by the analysis of variance; none is below zero."""
        seeds, patients = self.influence.shape
        rows, columns = self.influence.mean(1, keepdims=True), self.influence.mean(0, keepdims=True)
        rest = self.influence - rows - columns + self.influence.mean()
        crossing = float((rest**2).sum() / max(1, (seeds - 1) * (patients - 1)))
        patient = float(patients * (self.of_patients**2).sum() - crossing / seeds)
        seed = float(seeds * (self.of_seeds**2).sum() - crossing / patients)
        moved = self.of_patients
        variance = float((moved**2).sum())
        skewness = (
            float((moved**3).sum()) * math.sqrt(patients) / variance**1.5 if variance else 0.0
        )
        return Parts(max(0.0, patient), max(0.0, seed), crossing, skewness)

    @property
    def decidable(self) -> bool:
        """Whether patients and seeds both show their spread."""
        known = len(self.values) > min(1, len(self.seeds))
        return known and self.influence.shape[1] > 1 and not self._undefined

    @property
    def _undefined(self) -> bool:
        return bool(np.isnan(self.values).any() or np.isnan(self.influence).any())


def _scaled(values: Floats) -> Floats:
    count = len(values)
    return (values - values.mean()) / math.sqrt(count * max(1, count - 1))


@dataclass(frozen=True)
class Parts:
    """The variance of a difference between two models, of one patient and one seed.

    Attributes:
        patient: of the mean over all seeds, between patients.
        seed: of the mean over all patients, between seeds.
        crossing: what is left.
        skewness: of the patients' influences, by the standard deviation of one patient in the mean
            over these seeds.
    """

    patient: float
    seed: float
    crossing: float
    skewness: float = 0.0

    def of_mean(self, patients: float, seeds: float) -> tuple[float, float]:
        """Variance of a mean over patients and seeds, and its degrees of freedom.

        Source: F. E. Satterthwaite, Biometrics Bulletin 2 (1946).
        """
        crossing = self.crossing / (patients * seeds)
        by_patient, by_seed = self.patient / patients + crossing, self.seed / seeds + crossing
        total = by_patient + by_seed - crossing
        if not total:
            return 0.0, math.inf
        spread = by_patient**2 / (patients - 1) + by_seed**2 / max(1, seeds - 1)
        return total, max(1.0, total**2 / spread)

    def power(self, effect: float, patients: float, seeds: float, critical: float) -> float:
        """Share of studies that find a true difference `effect` above zero.

        Args:
            patients, seeds: of such a study; infinity is allowed.
            critical: of its family, see `Family`.

        Source: normal approximation; with skewed patients a difference and its standard error rise
            together, which makes their ratio vary less: P. Hall, The Bootstrap and Edgeworth
            Expansion (1992), section 2.6.
        """
        from scipy import stats

        variance, freedom = self.of_mean(patients, seeds)
        if not variance:
            return 1.0
        ratio = effect / math.sqrt(variance)
        spread = 1 - self.skewness / math.sqrt(patients) * ratio / 2
        bound = stats.t.isf(stats.norm.sf(critical), min(freedom, float(MANY)))
        return float(stats.norm.cdf((ratio - bound) / min(max(spread, SPREAD[0]), SPREAD[1])))

    def smallest(self, patients: int, critical: float) -> float:
        """The true difference that `POWER` of studies with these patients find, however many seeds
        they train.

        NaN if these seeds vary too much to show any spread over patients, though there is some.
        """
        from scipy.optimize import brentq

        def lacking(effect: float) -> float:
            return self.power(effect, patients, math.inf, critical) - POWER

        if not self.of_mean(patients, math.inf)[0]:
            return math.nan if self.crossing or self.seed else 0.0
        high = 1.0
        while lacking(high) < 0:
            high *= 2
        return float(brentq(lacking, 0.0, high))

    def seeds_needed(self, effect: float, patients: int, critical: float) -> float:
        """Fewest seeds, from 2, with which `POWER` of studies with these patients find `effect`;
        infinity if no number suffices.
        """
        return _fewest(lambda seeds: self.power(effect, patients, seeds, critical))

    def patients_needed(self, effect: float, seeds: int, critical: float) -> float:
        """As `seeds_needed`, of patients like these."""
        return _fewest(lambda patients: self.power(effect, patients, seeds, critical))


def _fewest(power: Callable[[int], float]) -> float:
    if power(MANY) < POWER:
        return math.inf
    return float(2 + bisect_left(range(2, MANY), POWER, key=power))


@dataclass(frozen=True)
class Family:
    """The differences of a study with their simultaneous intervals.

    Attributes:
        critical: what the largest of |difference| / standard error exceeds in 5 % of studies
            without any difference, with known standard errors. The more differences, and the less
            they go together, the larger: 1.96 for one.
        intervals: of each difference: low, high, and p (adjusted: below 0.05 if the interval
            excludes zero). NaN where it is not decidable.
    """

    critical: float
    intervals: list[tuple[float, float, float]]


def simultaneous(differences: Sequence[Difference], level: float = LEVEL) -> Family:
    """Intervals that hold together with a probability of `level`.

    The largest standardised difference is drawn by a crossed bootstrap: patients and seeds get
    independent normal weights, the same for all differences, so that it uses how much they go
    together. Given the data, the weighted sums are normal with a known covariance, from which they
    are drawn directly. Student's t in place of the normal corrects for few patients and few seeds.

    Source: max-statistic: P. H. Westfall, S. S. Young, Resampling-Based Multiple Testing (1993);
        crossed effects: A. B. Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007);
        normal weights: D. Chernozhukov and others, Ann. Stat. 41 (2013).
    """
    known = [difference for difference in differences if difference.decidable]
    if not known:
        return Family(math.nan, [(math.nan,) * 3 for _ in differences])
    largest = _largest(known)
    critical = float(np.quantile(largest, level))
    return Family(critical, [_interval(d, critical, largest) for d in differences])


def _interval(
    difference: Difference, critical: float, largest: Floats
) -> tuple[float, float, float]:
    """The interval and the adjusted p of one difference."""
    from scipy import stats

    if not difference.decidable:
        return math.nan, math.nan, math.nan
    seeds, patients = difference.influence.shape
    variance, freedom = difference.parts.of_mean(patients, seeds)
    value, sd = difference.value, math.sqrt(variance)
    half = stats.t.isf(stats.norm.sf(critical), freedom) * sd
    if abs(value) < SAME:
        beaten = largest >= 0
    elif sd:
        beaten = largest >= stats.norm.isf(stats.t.sf(abs(value) / sd, freedom))
    else:
        beaten = np.zeros(len(largest), dtype=bool)
    return value - half, value + half, float((1 + beaten.sum()) / (1 + len(largest)))


def _largest(differences: Sequence[Difference]) -> Floats:
    """The largest of |difference| / standard error in each draw, without any true difference."""
    seeds = sorted({seed for difference in differences for seed in difference.seeds})
    patients = differences[0].influence.shape[1]
    moves = np.zeros((len(differences), patients + len(seeds)))
    for row, difference in zip(moves, differences, strict=True):
        row[:patients] = difference.of_patients
        if len(difference.seeds):
            row[[patients + seeds.index(seed) for seed in difference.seeds]] = difference.of_seeds
    size = np.sqrt((moves**2).sum(1))
    moves = moves / np.where(size > 0, size, 1)[:, None]
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_normal(np.zeros(len(moves)), moves @ moves.T, DRAWS, method="eigh")
    return np.abs(drawn).max(1)
