"""Logistic regression of the truth on the logits: temperature and Platt's numbers.

Arrays: N images, G patients.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fluoroscope.statistics import Floats

Bounds = tuple[float, float]
NO_BOUNDS: Bounds = (math.nan, math.nan)
TAIL = 0.025  # on each side of a 95 % interval


class Logistic(NamedTuple):
    """A regression of the truth on the logits.

    Attributes:
        slope, intercept: 1 and 0 if a class is missing, or if all logits are equal.
        errors: standard errors of both over patients; NaN if they are not known: without patients,
            and if every image with the finding scores higher than all others.
        freedom: degrees of freedom, G - 1.
    """

    slope: float
    intercept: float
    errors: tuple[float, float] = NO_BOUNDS
    freedom: int = 0

    @property
    def temperature(self) -> float:
        """By which the logits are divided; 1 if larger logits do not mean the finding."""
        return 1 / self.slope if self.slope > 0 else 1.0

    @property
    def temperature_bounds(self) -> Bounds:
        """95 % interval of the temperature; NaN if it is 1 by default.

        It is symmetric on the log scale. If the slope may be 0, no temperature is too large.

        Source: the delta method; see `_errors` for the standard error.
        """
        if self.slope <= 0 or math.isnan(self.errors[0]):
            return NO_BOUNDS
        wide = self._wide(0)
        if wide >= self.slope:
            return 1 / (self.slope + wide), math.inf
        factor = math.exp(wide / self.slope)
        return self.temperature / factor, self.temperature * factor

    @property
    def platt_bounds(self) -> tuple[Bounds, Bounds]:
        """95 % intervals of slope and intercept."""
        if math.isnan(self.errors[0]):
            return NO_BOUNDS, NO_BOUNDS
        slope, intercept = (
            (value - self._wide(k), value + self._wide(k)) for k, value in enumerate(self[:2])
        )
        return slope, intercept

    def _wide(self, place: int) -> float:
        from scipy.stats import t

        return float(t.isf(TAIL, self.freedom)) * self.errors[place]


def fit_temperature(logits: ArrayLike, truth: ArrayLike) -> float:
    """The temperature with the smallest log loss; 1 if a class is missing or no score is right.

    Source: C. Guo and others, On calibration of modern neural networks, ICML (2017), for one label.
    """
    return fit_logistic(logits, truth, intercept=False).temperature


def fit_platt(logits: ArrayLike, truth: ArrayLike) -> tuple[float, float]:
    """Slope and intercept of the logits; (1, 0) if a class is missing.

    Source: J. Platt, Probabilistic outputs for support vector machines (1999).
    """
    fitted = fit_logistic(logits, truth, intercept=True)
    return fitted.slope, fitted.intercept


def fit_logistic(
    logits: ArrayLike, truth: ArrayLike, intercept: bool, patient: ArrayLike | None = None
) -> Logistic:
    """A logistic regression by scikit-learn, on Platt's targets: not quite 0 and 1, so that a split
    without errors has a finite solution.

    Args:
        logits: [N].
        truth: [N]; only 1 and 0 count.
        intercept: whether there is one.
        patient: [N]; None: no standard errors.
    """
    from sklearn.linear_model import LogisticRegression

    y = np.asarray(truth, dtype=float)
    known = (y == 0) | (y == 1)
    x, y = np.asarray(logits, dtype=float)[known], y[known]
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    if not positives or not negatives or np.ptp(x) == 0:
        return Logistic(1.0, 0.0)
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = float(np.abs(x).max())
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, tol=1e-10, max_iter=1000)
    twice, classes = np.tile(x / scale, 2)[:, None], np.repeat([1, 0], len(x))
    model.fit(twice, classes, sample_weight=np.concatenate([target, 1 - target]))
    found = float(model.coef_[0, 0]) / scale, float(model.intercept_[0]) if intercept else 0.0
    separated = x[y == 1].min() > x[y == 0].max()  # then nothing limits the slope but the targets
    if patient is None or separated:
        return Logistic(*found)
    who = np.unique(np.asarray(patient)[known], return_inverse=True)[1]
    design = np.stack([x, np.ones_like(x)], axis=1)[:, : 1 + intercept]
    return Logistic(*found, _errors(design, np.array(found), target, who), int(who.max()))


def _errors(
    design: Floats, found: Floats, target: Floats, patient: np.ndarray
) -> tuple[float, float]:
    """Standard errors of the coefficients over patients; 0 for one that is not fitted.

    Args:
        design: [N, 1 or 2].
        found: both coefficients.
        target: [N].
        patient: [N], numbers from 0 to G - 1.

    Source: sandwich estimate over clusters: K.-Y. Liang, S. L. Zeger, Longitudinal data analysis
        using generalized linear models, Biometrika 73 (1986), times G / (G - 1).
    """
    patients, fitted = int(patient.max()) + 1, design.shape[1]
    if patients < 2:
        return NO_BOUNDS
    p = 1 / (1 + np.exp(-np.clip(design @ found[:fitted], -500, 500)))
    pull = np.zeros((patients, fitted))
    np.add.at(pull, patient, (target - p)[:, None] * design)
    inverse = np.linalg.pinv(design.T @ ((p * (1 - p))[:, None] * design))
    variance = inverse @ (pull.T @ pull) @ inverse * patients / (patients - 1)
    slope, intercept = [*np.sqrt(np.diag(variance)), 0.0][:2]
    return float(slope), float(intercept)
