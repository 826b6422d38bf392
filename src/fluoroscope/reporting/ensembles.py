"""Ensembles over seeds: the mean of their probabilities, scored as one model."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fluoroscope.reporting.collect import Run
from fluoroscope.reporting.folds import by_fold, pooled
from fluoroscope.reporting.inference import Difference, simultaneous
from fluoroscope.statistics import Floats, fewest_patients, logit_interval, macro_auroc

DIFFERENCE = ("ensemble_difference", "ensemble_difference_low", "ensemble_difference_high")


class Ensemble(NamedTuple):
    """The test AUROC of all seeds of a row together.

    Attributes:
        seeds: at least two.
        value, influence: of `statistics.macro_auroc`.
        low, high: 95 % interval over patients.
    """

    seeds: frozenset[int]
    value: float
    influence: Floats
    low: float
    high: float


def score_ensembles(
    groups: Sequence[tuple[Any, list[Run]]], reference: str
) -> list[dict[str, dict[str, float]]]:
    """The columns `ensemble*` of each setting, by row; a row of one seed has none.

    An ensemble stands for its seeds, so the intervals of the differences are over patients alone.
    They hold together, as those of the comparison do. They decide nothing: the question is what a
    network gains, not what ten gain.

    Args:
        groups: settings and their runs, all with predictions.
        reference: name of the row that the others with the same seeds are compared with.
    """
    settings = [_by_row(runs) for _, runs in groups]
    found = [{name: _columns(own) for name, own in rows.items()} for rows in settings]
    pairs = [
        (at, name, own, rows[reference])
        for at, rows in enumerate(settings)
        for name, own in rows.items()
        if name != reference and reference in rows and own.seeds == rows[reference].seeds
    ]
    differences = [_difference(own, other) for _, _, own, other in pairs]
    family = simultaneous(differences)
    for (at, name, _, _), pair, (low, high, _) in zip(
        pairs, differences, family.intervals, strict=True
    ):
        found[at][name] |= dict(zip(DIFFERENCE, (pair.value, low, high), strict=True))
    return found


def _by_row(runs: Sequence[Run]) -> dict[str, Ensemble]:
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    several = {name: own for name, own in rows.items() if len({run.seed for run in own}) > 1}
    return {name: _ensemble(own) for name, own in several.items()}


def _ensemble(runs: Sequence[Run]) -> Ensemble:
    labels = runs[0].result["labels"]
    tested = pooled([_mean(members, labels) for members in by_fold(runs).values()])
    value, influence = macro_auroc(tested.table, labels, tested.fold)
    fewest = fewest_patients(tested.table, labels)
    seeds = frozenset(run.seed for run in runs)
    return Ensemble(seeds, value, influence, *logit_interval(value, influence, fewest))


def _mean(runs: Sequence[Run], labels: Sequence[str]) -> Run:
    """The first run, with the mean probabilities of all: seeds of one fold test the same images."""
    columns = [f"{label}_probability" for label in labels]
    tables = [run.predictions["test"] for run in runs]
    mean = np.mean([table[columns].to_numpy(dtype=float) for table in tables], axis=0)
    averaged: pd.DataFrame = tables[0].assign(**dict(zip(columns, mean.T, strict=True)))
    return replace(runs[0], predictions=runs[0].predictions | {"test": averaged})


def _columns(own: Ensemble) -> dict[str, float]:
    values = {"ensemble": own.value, "ensemble_low": own.low, "ensemble_high": own.high}
    return values | dict.fromkeys(DIFFERENCE, math.nan)


def _difference(own: Ensemble, other: Ensemble) -> Difference:
    return Difference(
        [], np.array([own.value - other.value]), (own.influence - other.influence)[None]
    )
