"""Bootstrap over patients and seeds, paired tests, and the number of seeds a difference needs.

Runs, evaluations and reports share these functions, so that the same predictions always have the
same interval. Arrays: N images, K labels, G patients, S seeds, R resamples. A resample is a weight:
how often each patient, or seed, was drawn.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:  # imported where they are used, since a run needs few of them
    from scipy.sparse import csr_array

Floats = NDArray[np.float64]
# More seeds than any spread of AUROC differences, which lie between -1 and 1, requires.
MANY_SEEDS = 1_000_000
SAME = 1e-12  # scores that differ by less are equal up to rounding


def draws(units: int, resamples: int = 1000, seed: int = 0) -> Floats:
    """Bootstrap weights [units, R]: how often each unit (patient or seed) is drawn.

    Each column adds up to the number of units. The same seed gives the same draws.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 6.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples).T.astype(np.float64)


def macro_auroc(predictions: pd.DataFrame, labels: Sequence[str], weight: Floats) -> Floats:
    """Mean over labels of the AUROC, under each resample of patients [R].

    If a resample has only one class of a label, its mean leaves that label out; it is NaN if no
    label is left.

    Args:
        predictions: a column `group` (the patient), and per label the truth and the probability,
            as in `predictions/test.csv`.
        labels: names.
        weight: [G, R] of `draws`; ones [G, 1] for the AUROC itself.
    """
    patient = pd.factorize(predictions["group"])[0]
    columns = [(predictions[f"{label}_probability"], predictions[label]) for label in labels]
    values = np.stack([auroc(score, truth, patient, weight) for score, truth in columns])
    defined = (~np.isnan(values)).sum(0)
    total = np.nansum(values, axis=0)
    return np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0)


def auroc_interval(
    predictions: pd.DataFrame,
    labels: Sequence[str],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the macro AUROC, resampling patients with their images.

    Images of one patient resemble each other: drawing images one by one would make the interval too
    narrow. (NaN, NaN) if no label has both classes, or if `one_patient` holds for any. Patients are
    numbered in the order in which they appear, so the same rows give the same interval.

    Args:
        predictions, labels: of `macro_auroc`.
        resamples: number of bootstrap draws.
        level: coverage in (0, 1).
        seed: of the draws.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; patients
        as the unit: C. A. Field, A. H. Welsh, J. R. Stat. Soc. B 69 (2007).
    """
    if any(one_patient(predictions, label) for label in labels):
        return math.nan, math.nan
    weight = draws(predictions["group"].nunique(), resamples, seed)
    return percentile_interval(macro_auroc(predictions, labels, weight), level)


def count_classes(predictions: pd.DataFrame, label: str) -> dict[str, tuple[int, int]]:
    """Images and patients with and without a label: `{"positive": (7, 5), "negative": (60, 41)}`.

    Args:
        predictions: of `macro_auroc`.
        label: name.
    """
    groups = {"positive": predictions[label] == 1, "negative": predictions[label] == 0}
    patient = predictions["group"]
    return {name: (int(rows.sum()), patient[rows].nunique()) for name, rows in groups.items()}


def one_patient(predictions: pd.DataFrame, label: str) -> bool:
    """Whether all positive images of a label, or all negative ones, are of one patient.

    No resample then holds another patient of that class, so an interval would leave out how much
    the score depends on this one.
    """
    counts = count_classes(predictions, label).values()
    return all(images for images, _ in counts) and any(patients == 1 for _, patients in counts)


def auroc(score: ArrayLike, truth: ArrayLike, patient: ArrayLike, weight: Floats) -> Floats:
    """AUROC [R], each image counted as often as its patient is drawn.

    This is the weighted share of (positive, negative) pairs in the right order, a tie counting
    half; NaN where a class has no weight. 25,000 images x 1000 resamples take about 0.1 s.

    Args:
        score: [N], of any scale.
        truth: [N]; only 1 and 0 count.
        patient: [N], the image's row of `weight`.
        weight: [G, R].
    """
    score, truth, patient = np.asarray(score), np.asarray(truth), np.asarray(patient)
    positive, negative = truth == 1, truth == 0
    levels, level = np.unique(score[positive], return_inverse=True)
    # A positive at a negative's own level wins half a point, one above it a full point.
    from_own, from_above = (np.searchsorted(levels, score[negative], s) for s in ("left", "right"))
    shape = (len(levels) + 1, len(weight))
    beaten = _counts(np.r_[from_own, from_above], np.tile(patient[negative], 2), shape)[:-1] / 2
    positives = _counts(level, patient[positive], shape)[:-1]
    parts = [_won(positives, beaten, part) for part in _column_blocks(weight)]
    pairs = _total(patient[positive], weight) * _total(patient[negative], weight)
    won = np.concatenate(parts)
    return np.divide(won, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


def _counts(row: NDArray, column: NDArray, shape: tuple[int, int]) -> "csr_array":
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _won(positives: "csr_array", beaten: "csr_array", weight: Floats) -> Floats:
    """Pairs in the right order [R], from the counts [levels, G] of positives and half negatives."""
    return np.einsum("lr,lr->r", positives @ weight, np.cumsum(beaten @ weight, axis=0))


def _column_blocks(weight: Floats, block: int = 128) -> list[Floats]:
    """Columns of the weights in blocks, which bound the memory for many images."""
    return [weight[:, start : start + block] for start in range(0, weight.shape[1], block)]


def _total(patient: NDArray, weight: Floats) -> Floats:
    """Number of images drawn [R]."""
    return np.bincount(patient, minlength=len(weight)).astype(np.float64) @ weight


def percentile_interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrapped values [R]; NaN values are left out.

    (NaN, NaN) if none is defined.

    Source: Efron and Tibshirani (1993), section 13.3.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def crossed(values: Floats, seed: int = 1) -> Floats:
    """Means [R] over resampled seeds of values [S, R], whose columns resample the patients.

    Patients and seeds are drawn independently, because they are crossed: every seed's model scores
    every patient. With seven seeds or more the 95 % interval is slightly too wide. With two or
    three, if seeds vary more than patients, it is too narrow and covers 71 to 83 %.

    Source: A. B. Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007).
    """
    num_seeds, resamples = values.shape
    return (draws(num_seeds, resamples, seed) * values).sum(0) / num_seeds


def paired_p(differences: ArrayLike) -> float:
    """Two-sided p of a paired t test, from the differences of the pairs.

    NaN for one pair. If all differences are equal: 1 if they are zero, else 0, the limit for a
    vanishing spread.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2 or np.isnan(values).any():
        return math.nan
    if np.ptp(values) < SAME:
        return 1.0 if abs(values[0]) < SAME else 0.0
    from scipy import stats

    return float(stats.ttest_1samp(values, 0).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """P values adjusted by Holm's method; NaN stay NaN and do not count.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6
        (1979).
    """
    adjusted = np.array(p_values, dtype=float)
    known = ~np.isnan(adjusted)
    if known.any():
        from statsmodels.stats.multitest import multipletests

        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return adjusted


def seeds_needed(differences: ArrayLike, effect: float = 0.01) -> float:
    """Number of seeds for a power of 80 % in a two-sided paired t test at the level 0.05.

    It assumes that the differences of further seeds vary as much as these. At least 2; NaN for one
    difference, whose spread is unknown. It holds for these patients only: more seeds do not show
    how much other patients would change the difference.

    Source: noncentral t, as statsmodels.stats.power.TTestPower.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return math.nan
    sd = values.std(ddof=1)
    if sd < SAME:
        return 2.0
    return float(2 + bisect_left(range(2, MANY_SEEDS), 0.8, key=lambda n: _power(effect / sd, n)))


def _power(effect: float, seeds: int) -> float:
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().power(effect, seeds, 0.05, alternative="two-sided"))


def t_interval(values: ArrayLike) -> tuple[float, float, float]:
    """Mean and the bounds of its 95 % interval by Student's t; NaN bounds for one value."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else math.nan
    if len(known) < 2:
        return mean, math.nan, math.nan
    from scipy import stats

    half = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return mean, mean - half, mean + half


def nanmean(values: ArrayLike) -> float:
    """Mean of the values that are not NaN; NaN, without a warning, if there is none."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan
