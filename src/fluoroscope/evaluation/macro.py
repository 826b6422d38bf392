"""Means of the scores over the judged labels.

A label counts as much as another, however many images it has. Arrays: B draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fluoroscope.evaluation.contents import UNKNOWN, Estimate, LabelScores, Macro, MacroPoint
from fluoroscope.evaluation.decisions import PointDraws
from fluoroscope.evaluation.intervals import by_distance, by_logit, by_percentiles
from fluoroscope.evaluation.quality import QualityDraws
from fluoroscope.evaluation.ranking import auroc
from fluoroscope.evaluation.resampling import Patients
from fluoroscope.statistics import Floats, fewest_patients

Interval = Callable[[float, Floats], Estimate]
OF_QUALITY = {"brier": by_percentiles, "ece": by_distance, "log_loss": by_percentiles}


class LabelDraws(NamedTuple):
    """Scores of one label in the draws, [B] each."""

    auprc: Floats
    before: QualityDraws
    after: QualityDraws
    points: dict[str, PointDraws]
    own: dict[str, Floats]


def score_macro(
    table: pd.DataFrame,
    scores: Mapping[str, LabelScores],
    draws: Mapping[str, LabelDraws],
    patients: Patients,
) -> Macro:
    """Means over the labels of `draws`, which are those that are judged.

    Args:
        table: predictions, as `predictions/test.csv`.
        scores, draws: by label.
        patients: those of the table.
    """
    if not draws:
        return Macro(0)
    own, drawn = [scores[label] for label in draws], list(draws.values())
    in_logits = partial(
        by_logit, fewest=fewest_patients(table, list(draws)), patients=patients.count
    )
    return Macro(
        len(draws),
        auroc(table, list(draws)),
        _mean(in_logits, [part.auprc for part in own], [part.auprc for part in drawn]),
        **_means(OF_QUALITY, own, [part.after for part in drawn]),
        **{
            f"{kind}_before": value
            for kind, value in _means(
                OF_QUALITY, [part.before for part in own], [part.before for part in drawn]
            ).items()
        },
        points=_points(in_logits, own, drawn),
        own={
            name: _mean(
                by_percentiles, [part.own[name] for part in own], [part.own[name] for part in drawn]
            )
            for name in drawn[0].own
        },
    )


def _points(
    interval: Interval, own: Sequence[LabelScores], drawn: Sequence[LabelDraws]
) -> dict[str, MacroPoint]:
    """The points that any label has, each averaged over the labels that have it."""
    made = {}
    for name in dict.fromkeys(name for part in own for name in part.points):
        pairs = [
            (part.points[name], draws.points[name])
            for part, draws in zip(own, drawn, strict=True)
            if name in part.points
        ]
        points, draws_of = zip(*pairs, strict=True)
        made[name] = MacroPoint(
            **_means(dict.fromkeys(PointDraws._fields, interval), points, draws_of)
        )
    return made


def _means(
    intervals: Mapping[str, Interval], own: Sequence[Any], drawn: Sequence[Any]
) -> dict[str, Estimate]:
    """The mean of each named attribute, with the interval of its kind."""
    return {
        kind: _mean(interval, [getattr(x, kind) for x in own], [getattr(x, kind) for x in drawn])
        for kind, interval in intervals.items()
    }


def _mean(interval: Interval, own: Sequence[Estimate], drawn: Sequence[Floats]) -> Estimate:
    """The mean of the labels whose value is defined."""
    known = [pair for pair in zip(own, drawn, strict=True) if not math.isnan(pair[0].value)]
    if not known:
        return UNKNOWN
    value = float(np.mean([part.value for part, _ in known]))
    return interval(value, np.mean([draws for _, draws in known], axis=0))
