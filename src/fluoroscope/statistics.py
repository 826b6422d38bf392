"""AUROC and its interval over patients; means over seeds.

Runs, evaluations and reports share these functions, so that the same predictions always have the
same interval. Arrays: N images, G patients.

The spread over patients comes from the influence of each patient on the score, since images of one
patient resemble each other.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def auroc(
    score: ArrayLike, truth: ArrayLike, patient: ArrayLike, fold: ArrayLike | None = None
) -> tuple[float, Floats]:
    """The AUROC, and how much each patient adds to it [G]; NaN if a class is missing.

    The AUROC is the share of (positive, negative) pairs in the right order; a tie counts half. A
    patient's influence is G times its derivative by the patient's weight (all have 1): the
    influences add up to zero, and their variance over G is the variance of the AUROC over patients.
    25,000 images take about 0.02 s.

    The folds of a cross-validation have a model each, whose scores may differ in scale. So only
    pairs of one fold count: the AUROC is the mean of those of the folds, weighted by their pairs.
    The influences hold the weights fixed, and add up to zero in each fold. They are a little larger
    than the derivative, so that the variance is that of independent folds, each with G_k - 1 for
    its G_k patients.

    Args:
        score: [N], of any scale; with folds, of any scale per fold.
        truth: [N]; only 1 and 0 count.
        patient: [N], numbers from 0 to G - 1.
        fold: [N], any numbers; None: one model has scored all images.

    Source: infinitesimal jackknife, L. A. Jaeckel (1972), in B. Efron, R. Tibshirani, An
        Introduction to the Bootstrap (1993), chapter 21. With one image per patient it is the
        variance of DeLong and others, Biometrics 44 (1988), with n in place of n - 1. Pairs of one
        fold: G. Forman, M. Scholz, Apples-to-apples in cross-validation studies, SIGKDD
        Explorations 12 (2010).
    """
    score, truth, patient = np.asarray(score), np.asarray(truth), np.asarray(patient)
    fold = np.zeros(len(score)) if fold is None else np.asarray(fold)
    groups = int(patient.max()) + 1 if len(patient) else 0
    of_folds = [fold == part for part in np.unique(fold)]
    parts = [_of_one_model(score[f], truth[f], patient[f], groups) for f in of_folds]
    pairs = sum(count for count, _, _ in parts)
    if not pairs:
        return math.nan, np.full(groups, math.nan)
    value, influence = 0.0, np.zeros(groups)
    for rows, (count, own, moves) in zip(of_folds, parts, strict=True):
        value += count / pairs * own
        influence += count / pairs * _fold_scale(patient[rows], groups) * moves
    return value, influence


def _fold_scale(patient: NDArray[np.int64], groups: int) -> float:
    """1 if a fold has all patients; of fewer, the variance within the fold is corrected."""
    own = len(np.unique(patient))
    return math.sqrt(own * (groups - 1) / ((own - 1) * groups)) if 1 < own < groups else 1.0


def _of_one_model(
    score: Floats, truth: Floats, patient: NDArray[np.int64], groups: int
) -> tuple[int, float, Floats]:
    """The number of (positive, negative) pairs, the AUROC and the influences [G]; 0 if no pair."""
    (positive, of_positive), (negative, of_negative) = (
        (score[truth == value], patient[truth == value]) for value in (1, 0)
    )
    pairs = len(positive) * len(negative)
    if not pairs:
        return 0, 0.0, np.zeros(groups)
    right = np.zeros(groups)
    right += np.bincount(of_positive, _below(positive, negative), groups)
    right += np.bincount(of_negative, len(positive) - _below(negative, positive), groups)
    value = right.sum() / 2 / pairs
    share = sum(np.bincount(of, minlength=groups) / len(of) for of in (of_positive, of_negative))
    return pairs, float(value), groups * (right / pairs - value * share)


def _below(values: Floats, others: Floats) -> Floats:
    """For each value, how many of the others lie below it; equal ones count half."""
    ordered = np.sort(others)
    sides = [np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")]
    return np.mean(sides, axis=0)


def macro_auroc(
    predictions: pd.DataFrame, labels: Sequence[str], fold: ArrayLike | None = None
) -> tuple[float, Floats]:
    """Mean over labels of the AUROC, and the influence of each patient on it [G].

    Labels without both classes are left out; NaN if none is left. The influences are NaN if all
    positive, or all negative, images of a label are of one patient (`one_patient`).

    Args:
        predictions: a column `group` (the patient), and per label the truth and the probability,
            as in `predictions/test.csv`. Patients are numbered by their order of appearance.
        labels: names.
        fold: of `auroc`.
    """
    patient = pd.factorize(predictions["group"])[0]
    parts = [auroc(predictions[f"{n}_probability"], predictions[n], patient, fold) for n in labels]
    scored = [part for part in parts if not math.isnan(part[0])]
    if not scored:
        return parts[0] if parts else (math.nan, np.empty(0))
    values, influences = zip(*scored, strict=True)
    influence = np.mean(influences, axis=0)
    if any(one_patient(predictions, label) for label in labels):
        influence = np.full_like(influence, math.nan)
    return float(np.mean(values)), influence


def auroc_interval(
    predictions: pd.DataFrame, labels: Sequence[str], level: float = 0.95
) -> tuple[float, float]:
    """Interval of the macro AUROC for other patients; see `logit_interval`.

    (NaN, NaN) if no label has both classes, or if `one_patient` holds for any.

    Args:
        predictions, labels: of `macro_auroc`.
        level: coverage in (0, 1).
    """
    fewest = fewest_patients(predictions, labels)
    return logit_interval(*macro_auroc(predictions, labels), fewest, level)


def logit_interval(
    value: float, influence: Floats, fewest: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of an AUROC that is symmetric on the logit scale, so that it stays within 0 and 1.

    With normal scores of an AUROC of 0.67 to 0.98 it covers the truth in 93 to 98 % of studies
    with 10 to 200 patients (`benchmarks.placebo`).
    If every pair is in the right order there is no spread; then the bound is exact: with the
    AUROC A, k independent pairs are all right with a probability of A ** k.

    Args:
        value: AUROC.
        influence: of `macro_auroc` [G].
        fewest: number of patients of the rarer class.
        level: coverage in (0, 1).

    Source: M. S. Pepe, The Statistical Evaluation of Medical Tests for Classification and
        Prediction (2003), section 5.2.4.
    """
    patients = len(influence)
    if math.isnan(value) or np.isnan(influence).any():
        return math.nan, math.nan
    sd = math.sqrt(influence.var(ddof=1) / patients) if 0 < value < 1 else 0.0
    return logit_bounds(value, sd, patients - 1, fewest, level)


def logit_bounds(
    value: float, sd: float, freedom: int, fewest: int, level: float = 0.95
) -> tuple[float, float]:
    """Bounds of a score in [0, 1] with the standard error `sd`; see `logit_interval`.

    Args:
        freedom: degrees of freedom.
        fewest: number of patients of the rarer class.
    """
    tail = (1 - level) / 2
    if value in (0, 1):
        bound = tail ** (1 / fewest)
        return (bound, 1.0) if value else (0.0, 1 - bound)
    from scipy import stats

    half = stats.t.isf(tail, freedom) * sd / (value * (1 - value))
    low, high = (1 / (1 + (1 / value - 1) * math.exp(-side * half)) for side in (-1, 1))
    return low, high


def count_classes(predictions: pd.DataFrame, label: str) -> dict[str, tuple[int, int]]:
    """Images and patients with and without a label: `{"positive": (7, 5), "negative": (60, 41)}`.

    Args:
        predictions: of `macro_auroc`.
        label: name.
    """
    groups = {"positive": predictions[label] == 1, "negative": predictions[label] == 0}
    patient = predictions["group"]
    return {name: (int(rows.sum()), patient[rows].nunique()) for name, rows in groups.items()}


def fewest_patients(predictions: pd.DataFrame, labels: Sequence[str]) -> int:
    """Patients of the rarest class of all labels that have both; 0 if none has."""
    counts = [count_classes(predictions, label).values() for label in labels]
    both = [classes for classes in counts if all(images for images, _ in classes)]
    return min((patients for classes in both for _, patients in classes), default=0)


def one_patient(predictions: pd.DataFrame, label: str) -> bool:
    """Whether all positive images of a label, or all negative ones, are of one patient.

    The score without this patient is then not defined, so nothing shows how much it depends on
    this one.
    """
    counts = count_classes(predictions, label).values()
    return all(images for images, _ in counts) and any(patients == 1 for _, patients in counts)


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
