"""Decisions at a threshold: counts and rates.

Arrays: N images, G patients, B draws, T thresholds.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fluoroscope.evaluation.benefit import at_prevalence, net_benefits
from fluoroscope.evaluation.contents import Point
from fluoroscope.evaluation.counting import Counts
from fluoroscope.evaluation.intervals import (
    Shares,
    by_percentiles,
    complement,
    ratio,
    shares,
    transformed,
)
from fluoroscope.evaluation.resampling import Patients
from fluoroscope.statistics import Floats


class PointDraws(NamedTuple):
    """Values of a point in the draws [B]; NaN where they are not defined."""

    sensitivity: Floats
    specificity: Floats
    ppv: Floats
    npv: Floats
    f1: Floats


def score_points(
    counts: Counts,
    thresholds: Mapping[str, tuple[float, float]],
    prevalence: float | None,
    patients: Patients,
) -> tuple[dict[str, Point], dict[str, PointDraws]]:
    """The points by name, and their values in the draws.

    Args:
        counts: by patient, at the calibrated thresholds in their order.
        thresholds: calibrated and raw, by name.
        prevalence: at which PPV, NPV and net benefit are given too.
    """
    drawn = Counts(*(patients.sums(part) for part in counts))
    benefits = net_benefits(counts, [cut for cut, _ in thresholds.values()], patients)
    rates, made = _rates(counts), {}
    for k, (name, (threshold, raw)) in enumerate(thresholds.items()):
        own = {kind: part.at(k) for kind, part in rates.items()}
        false_positive, jaccard = own.pop("false_positive"), own.pop("jaccard")
        sensitivity, specificity = own["sensitivity"], own["specificity"]
        made[name] = Point(
            threshold,
            raw,
            **own,
            f1=transformed(jaccard, lambda j: 2 * j / (1 + j)),
            lr_positive=ratio(sensitivity, false_positive),
            lr_negative=ratio(transformed(sensitivity, complement), specificity),
            **{
                kind: by_percentiles(int(part[:, k].sum()), draws[:, k])
                for kind, part, draws in zip(Counts._fields, counts, drawn, strict=True)
            },
            net_benefit=benefits[k],
            at_prevalence=(
                None
                if prevalence is None
                else at_prevalence(sensitivity, false_positive, threshold, prevalence)
            ),
        )
    return made, {name: _point_draws(drawn, k) for k, name in enumerate(thresholds)}


def _rates(counts: Counts) -> dict[str, Shares]:
    tp, fp, fn, tn = counts
    return {
        "sensitivity": shares(tp, tp + fn),
        "specificity": shares(tn, tn + fp),
        "ppv": shares(tp, tp + fp),
        "npv": shares(tn, tn + fn),
        "false_positive": shares(fp, tn + fp),
        "jaccard": shares(tp, tp + fp + fn),  # F1 is a function of it
    }


def _point_draws(drawn: Counts, k: int) -> PointDraws:
    tp, fp, fn, tn = (part[:, k] for part in drawn)
    with np.errstate(invalid="ignore"):
        rates = tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn)
        return PointDraws(*rates, 2 * tp / (2 * tp + fp + fn))
