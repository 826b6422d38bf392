"""The worth of decisions: net benefit, and predictive values at another prevalence.

Net benefit counts true positives per image, less the false positives at their price: to someone
who acts at a probability t, a false positive costs t / (1 - t) of what a true positive brings.

Source: A. J. Vickers, E. B. Elkin, Decision curve analysis, Medical Decision Making 26 (2006).
"""

import math
from collections.abc import Sequence

import numpy as np

from fluoroscope.evaluation.contents import UNKNOWN, AtPrevalence, BenefitAt, Estimate
from fluoroscope.evaluation.counting import Counts
from fluoroscope.evaluation.intervals import (
    by_percentiles,
    complement,
    ratio,
    shares,
    transformed,
    weighted_difference,
)
from fluoroscope.evaluation.resampling import Patients


def odds_of(threshold: float) -> float:
    return threshold / (1 - threshold) if threshold < 1 else math.inf


def net_benefits(counts: Counts, thresholds: Sequence[float], patients: Patients) -> list[Estimate]:
    """Net benefit at each threshold, at the prevalence of the images; NaN at a threshold of 1.

    Args:
        counts: by patient [G, T].
    """
    price = np.array([odds_of(threshold) for threshold in thresholds])
    price[np.isinf(price)] = math.nan
    gain = counts.tp - counts.fp * price
    drawn = patients.sums(gain) / patients.sums(counts.images)
    own = (gain.sum(0) / counts.images.sum(0)).tolist()
    return [by_percentiles(value, draws) for value, draws in zip(own, drawn.T, strict=True)]


def benefit_at(
    sensitivity: Estimate, false_positive: Estimate, threshold: float, prevalence: float
) -> Estimate:
    """Net benefit at another prevalence; NaN at a threshold of 1."""
    price = (1 - prevalence) * odds_of(threshold)
    if math.isinf(price):
        return UNKNOWN
    return weighted_difference(sensitivity, false_positive, prevalence, price)


def at_prevalence(
    sensitivity: Estimate, false_positive: Estimate, threshold: float, prevalence: float
) -> AtPrevalence:
    """PPV, NPV and net benefit if sensitivity and specificity stay, but the prevalence changes.

    PPV and NPV are functions of the likelihood ratios (Bayes).

    Args:
        false_positive: share of the negative images that are called positive.
        threshold: on the calibrated probability.
    """
    odds = prevalence / (1 - prevalence)
    lr_positive = ratio(sensitivity, false_positive)
    lr_negative = ratio(*(transformed(x, complement) for x in (sensitivity, false_positive)))
    return AtPrevalence(
        prevalence,
        ppv=transformed(lr_positive, lambda lr: 1 / (1 + 1 / (odds * lr)) if lr else 0.0),
        npv=transformed(lr_negative, lambda lr: 1 / (1 + odds * lr)),
        net_benefit=benefit_at(sensitivity, false_positive, threshold, prevalence),
    )


def decision_curve(
    counts: Counts, thresholds: Sequence[float], prevalence: float | None, patients: Patients
) -> list[BenefitAt]:
    """Net benefit of the model at each threshold, and of calling every image positive.

    Args:
        counts: by patient [G, T].
        thresholds: T, below 1.
        prevalence: at which the net benefit is given; None: that of the images.
    """
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    if prevalence is None:
        share = float(positives[:, 0].sum() / counts.images[:, 0].sum())
        benefits = net_benefits(counts, thresholds, patients)
    else:
        share = prevalence
        hits, alarms = shares(counts.tp, positives), shares(counts.fp, negatives)
        benefits = [
            benefit_at(hits.at(k), alarms.at(k), cut, prevalence)
            for k, cut in enumerate(thresholds)
        ]
    alls = [share - (1 - share) * odds_of(cut) for cut in thresholds]
    return [BenefitAt(*row) for row in zip(thresholds, benefits, alls, strict=True)]
