"""All scores of a table of predictions: of each label, and their means over the judged labels.

Arrays: N images, B draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from fluoroscope.errors import plural
from fluoroscope.evaluation.benefit import decision_curve
from fluoroscope.evaluation.contents import CalibrationUsed, Estimate, LabelScores, Macro
from fluoroscope.evaluation.counting import count
from fluoroscope.evaluation.decisions import score_points
from fluoroscope.evaluation.intervals import shares
from fluoroscope.evaluation.macro import LabelDraws, score_macro
from fluoroscope.evaluation.own import draw_own
from fluoroscope.evaluation.quality import QualityDraws, quality
from fluoroscope.evaluation.ranking import auprc, auroc
from fluoroscope.evaluation.resampling import Patients
from fluoroscope.run.score_limits import FEW
from fluoroscope.statistics import count_classes
from fluoroscope.trained.calibration import LabelCalibration, logit, sigmoid

CURVE = tuple(k / 100 for k in range(1, 100))  # thresholds of the decision curve


class Settings(NamedTuple):
    """What is scored, beside the predictions.

    Attributes:
        points: names of the operating points.
        prevalence: at which PPV, NPV and net benefit are given too; None: nowhere else.
        patients_known: of "all" images, of "some" or of "none".
        own: the user's scores by name, see `own_scores.OwnScore`.
    """

    points: Sequence[str]
    prevalence: float | None = None
    patients_known: str = "all"
    own: Mapping[str, Callable[..., float]] = MappingProxyType({})


def thresholds_of(
    calibration: LabelCalibration | None, points: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Calibrated and raw thresholds by name; validation without both classes gives none."""
    if calibration is None:
        return {}
    pairs = {name: (calibration.points[name], calibration.raw_points[name]) for name in points}
    return {name: pair for name, pair in pairs.items() if not np.isnan(pair).any()}


def score_label(
    table: pd.DataFrame,
    label: str,
    calibration: LabelCalibration | None,
    settings: Settings,
    patients: Patients,
) -> tuple[LabelScores, LabelDraws | None]:
    """The scores of one label; no draws if it is not judged.

    Args:
        table: predictions, as `predictions/test.csv`.
        calibration: of the label; None: the probabilities stay as they are.
        patients: those of the table.
    """
    facts = facts_of(table, label, settings.patients_known)
    if not facts.judged:
        return facts, None
    rows = table[label].isin([0, 1]).to_numpy()
    truth, raw = (table[name].to_numpy(float)[rows] for name in (label, f"{label}_probability"))
    before, draws = after, draws_after = quality(raw, truth, rows, patients)
    probability = raw
    if calibration is not None:
        probability = sigmoid(logit(raw) / calibration.temperature)
        after, draws_after = quality(probability, truth, rows, patients)
    precision, drawn = auprc(raw, truth, patients.number[rows], patients)
    thresholds = thresholds_of(calibration, settings.points)
    counts = count(probability, truth, [cut for cut, _ in thresholds.values()], rows, patients)
    points, of_points = score_points(counts, thresholds, settings.prevalence, patients)
    cut = next((cut for cut, _ in thresholds.values()), 0.5)
    own, draws_of_own = draw_own(settings.own, probability, truth, cut, rows, patients)
    curve = count(probability, truth, CURVE, rows, patients)
    positive, known = (patients.per_patient(rows, x) for x in (truth, np.ones_like(truth)))
    scores = replace(
        facts,
        prevalence=shares(positive, known).at(0),
        auroc=auroc(table, [label]),
        auprc=precision,
        **{name: getattr(after, name) for name in QualityDraws._fields},
        calibration=None if calibration is None else used(calibration),
        before=before,
        after=None if calibration is None else after,
        points=points,
        decision_curve=decision_curve(curve, CURVE, settings.prevalence, patients),
        own=own,
    )
    return scores, LabelDraws(drawn, draws, draws_after, of_points, draws_of_own)


def used(calibration: LabelCalibration) -> CalibrationUsed:
    own = calibration
    slope, intercept = map(Estimate, own.platt, *zip(*own.platt_bounds, strict=True))
    temperature = Estimate(own.temperature, *own.temperature_bounds)
    return CalibrationUsed(temperature, slope, intercept, own.images, own.positives)


def facts_of(table: pd.DataFrame, label: str, patients_known: str) -> LabelScores:
    """Numbers of images and patients, and whether they suffice; no scores."""
    counts = count_classes(table, label)
    images = {kind: own for kind, (own, _) in counts.items()}
    people = {kind: own if patients_known == "all" else None for kind, (_, own) in counts.items()}
    few = [
        f"{plural(own, f'{kind} image')}"
        + (f" of {plural(of, 'patient')}" if patients_known == "all" and own else "")
        for kind, (own, of) in counts.items()
        if min(own, of) < FEW
    ]
    needed = f"{FEW} images of each class, of {FEW} patients, are needed"
    known = table[label].isin([0, 1])
    return LabelScores(
        judged=not few,
        why_not=f"not judged: {' and '.join(few)}; {needed}" if few else "",
        images=sum(images.values()),
        positives=images["positive"],
        negatives=images["negative"],
        patients=int(table["group"][known].nunique()) if patients_known == "all" else None,
        positive_patients=people["positive"],
        negative_patients=people["negative"],
    )


def score_table(
    table: pd.DataFrame,
    labels: Sequence[str],
    calibration: Mapping[str, LabelCalibration],
    settings: Settings,
) -> tuple[dict[str, LabelScores], Macro]:
    """The scores of all labels and their means.

    25,000 images of 14 labels take about 20 s on one core.

    Args:
        table: predictions, as `predictions/test.csv`.
        labels: those to score.
        calibration: by label; empty if there is none.
    """
    patients = Patients(table["group"])
    scored = {
        label: score_label(table, label, calibration.get(label), settings, patients)
        for label in labels
    }
    scores = {label: own for label, (own, _) in scored.items()}
    draws = {label: drawn for label, (_, drawn) in scored.items() if drawn is not None}
    return scores, score_macro(table, scores, draws, patients)
