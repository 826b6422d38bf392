"""A model on another collection: its prevalence, and recalibration on a share of its patients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fluoroscope.errors import InputError, plural
from fluoroscope.evaluation.contents import Estimate, LabelScores, Quality
from fluoroscope.evaluation.quality import quality
from fluoroscope.evaluation.resampling import Patients
from fluoroscope.run.score_limits import FEW
from fluoroscope.statistics import Floats, count_classes
from fluoroscope.trained.calibration import LabelCalibration, logit, sigmoid
from fluoroscope.trained.fitting import fit_platt


@dataclass(frozen=True)
class Shift:
    """How common a label is here, and was in the validation of the model.

    Attributes:
        validation: share of positive images; NaN without a calibration.
        here: share among the scored images.
    """

    validation: float
    here: Estimate


@dataclass(frozen=True)
class Recalibrated:
    """One label before and after its calibration is fitted again on patients of the collection.

    Attributes:
        why_not: why it was not fitted again; empty if it was.
        images, positives: that it was fitted on; none of these patients is scored.
        slope, intercept: of the logits (Platt); a change of prevalence moves the intercept.
        before: quality of the probabilities as the model gives them, calibrated on its own
            validation; None if the label was not fitted again.
        after: quality of the same images with the new calibration.
    """

    why_not: str
    images: int
    positives: int
    slope: float = math.nan
    intercept: float = math.nan
    before: Quality | None = None
    after: Quality | None = None


@dataclass(frozen=True)
class Recalibration:
    """Attributes: see `Recalibrated`; share: of the patients, as it was asked for."""

    share: float
    images: int
    patients: int
    labels: dict[str, Recalibrated]


@dataclass(frozen=True)
class OtherCollection:
    """What an evaluation on another collection says.

    Attributes:
        source: its name.
        names: its name of each label that is scored.
        prevalence: by label.
        recalibration: None if it was not asked for.
        sentences: what was found, without full stops.
    """

    source: str
    names: dict[str, str]
    prevalence: dict[str, Shift]
    recalibration: Recalibration | None
    sentences: list[str]


def draw_patients(group: Sequence[int] | NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which images belong to a random share of the patients, bool [N]; always the same ones.

    Args:
        group: the patient of each image.
        share: of the patients, between 0 and 1.

    Raises:
        InputError: so small a share is nobody, or everybody.
    """
    people = np.unique(group)
    count = round(share * len(people))
    if not 0 < count < len(people):
        raise InputError(
            f"recalibrate={share:g} of {plural(len(people), 'patient')} leaves "
            f"{'nobody to fit on' if not count else 'nobody to score'}; choose another share"
        )
    return np.isin(group, np.random.default_rng(0).permutation(people)[:count])


def recalibrate(
    fitted_on: pd.DataFrame,
    scored: pd.DataFrame,
    labels: Sequence[str],
    calibration: Mapping[str, LabelCalibration],
    share: float,
) -> Recalibration:
    """Fit Platt's slope and intercept anew, and score the other patients before and after.

    AUROC and decisions do not change: the new calibration keeps the order of the images.

    Args:
        fitted_on, scored: predictions of different patients, as `run_folder.prediction_table` makes
            them.
        labels: those to score.
        calibration: of the model, by label; empty if it has none.
        share: of the patients in `fitted_on`.
    """
    patients = Patients(scored["group"])
    found = {n: _label(fitted_on, scored, n, calibration.get(n), patients) for n in labels}
    return Recalibration(share, len(fitted_on), int(fitted_on["group"].nunique()), found)


def _label(
    fitted_on: pd.DataFrame,
    scored: pd.DataFrame,
    label: str,
    calibration: LabelCalibration | None,
    patients: Patients,
) -> Recalibrated:
    counts = count_classes(fitted_on, label)
    facts = sum(images for images, _ in counts.values()), counts["positive"][0]
    if why_not := _few(fitted_on, label, "to fit on") or _few(scored, label, "to score"):
        return Recalibrated(why_not, *facts)
    known, rows = (table[label].isin([0, 1]).to_numpy() for table in (fitted_on, scored))
    slope, intercept = fit_platt(_logits(fitted_on, label)[known], fitted_on[label][known])
    truth, logits = scored[label].to_numpy(float)[rows], _logits(scored, label)[rows]
    temperature = 1.0 if calibration is None else calibration.temperature
    before, after = (
        quality(sigmoid(x), truth, rows, patients)[0]
        for x in (logits / temperature, slope * logits + intercept)
    )
    return Recalibrated("", *facts, slope, intercept, before, after)


def _logits(table: pd.DataFrame, label: str) -> Floats:
    return logit(table[f"{label}_probability"].to_numpy(float))


def _few(table: pd.DataFrame, label: str, purpose: str) -> str:
    few = [
        f"{plural(images, f'{kind} image')} of {plural(patients, 'patient')}"
        for kind, (images, patients) in count_classes(table, label).items()
        if min(images, patients) < FEW
    ]
    return f"only {' and '.join(few)} {purpose}" if few else ""


def other_collection(
    source: str,
    names: Mapping[str, str],
    scores: Mapping[str, LabelScores],
    calibration: Mapping[str, LabelCalibration],
    recalibration: Recalibration | None,
) -> OtherCollection:
    """Join the parts, and say what they mean.

    Args:
        scores: of the scored labels.
    """
    prevalence = {
        label: Shift(_validation_share(calibration.get(label)), own.prevalence)
        for label, own in scores.items()
    }
    said = [text for label, shift in prevalence.items() if (text := _shift_sentence(label, shift))]
    if recalibration is not None:
        said += [
            text
            for label, own in recalibration.labels.items()
            if (text := _fit_sentence(label, own))
        ]
    return OtherCollection(source, dict(names), prevalence, recalibration, said)


def _validation_share(calibration: LabelCalibration | None) -> float:
    if calibration is None or not calibration.images:
        return math.nan
    return calibration.positives / calibration.images


def _shift_sentence(label: str, shift: Shift) -> str:
    before, here = shift.validation, shift.here
    if math.isnan(before) or math.isnan(here.low) or here.low <= before <= here.high:
        return ""
    side = "more" if here.value > before else "less"
    return (
        f"{label} is {side} common here ({here.value:.1%}) than in the model's validation "
        f"({before:.1%})"
    )


def _fit_sentence(label: str, own: Recalibrated) -> str:
    if own.before is None or own.after is None:
        return f"{label} was not recalibrated: {own.why_not}"
    return (
        f"recalibrated, {label} has a calibration error of {own.after.ece.value:.3f} (before: "
        f"{own.before.ece.value:.3f}) and a Brier score of {own.after.brier.value:.3f} (before: "
        f"{own.before.brier.value:.3f})"
    )
