"""Several models as one: the mean of their calibrated probabilities.

Arrays: N images, K labels, in the order of the first model's labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fluoroscope.commands import called
from fluoroscope.errors import InputError
from fluoroscope.evaluation.calibrating import stored_for_other
from fluoroscope.evaluation.members import Member
from fluoroscope.statistics import Floats
from fluoroscope.trained.calibration import (
    Calibration,
    LabelCalibration,
    calibrated,
    logit,
    read_predictions,
    sigmoid,
)
from fluoroscope.trained.operating_points import POINTS, choose_point

JOINT = "chosen on the validation split that all models share"
MEANS = "means of the models' thresholds, since they do not share a validation split"


@dataclass(frozen=True)
class Ensemble:
    """What an evaluation says about its models.

    Attributes:
        fingerprints: of the weights, in the order of the command.
        auroc: mean over the labels, of each model alone on the same images.
        left_out: images that some model has seen in its training.
        thresholds: how the operating points were chosen.
    """

    fingerprints: list[str]
    auroc: list[float]
    left_out: int
    thresholds: str


class Part(NamedTuple):
    """One model of an ensemble with its calibration."""

    member: Member
    calibration: Calibration

    @property
    def columns(self) -> list[int]:
        """The place of each label of the ensemble among the model's own."""
        return [self.member.trained.labels.index(name) for name in self.member.labels.values()]

    def probability(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities [N, K] of logits [N, labels of the model]."""
        return calibrated(self.calibration, logits)[:, self.columns]

    def validation(self) -> pd.DataFrame | None:
        """The predictions for the validation split; None if the run did not keep them."""
        folder = self.member.trained.folder
        file = None if folder is None else folder / "predictions/val.csv"
        if file is None or not file.is_file():
            return None
        return read_predictions(file, self.member.trained.labels)


def part_of(member: Member, labels: Sequence[str], points: Sequence[str] = POINTS) -> Part:
    """A model that can be averaged with others.

    Args:
        labels: of the ensemble.
        points: names of the operating points.

    Raises:
        InputError: it lacks a label or an operating point, or has no calibration.
    """
    lacking = [label for label in labels if label not in member.labels]
    if lacking:
        raise InputError(
            f"{member.place} does not know {', '.join(lacking)}; the models of an ensemble need "
            "the same labels"
        )
    calibration = stored_for_other(member.trained, points)
    if calibration is None:
        raise not_calibrated(member.place)
    return Part(member._replace(labels={n: member.labels[n] for n in labels}), calibration)


def not_calibrated(place: str) -> InputError:
    return InputError(
        f"{place} is not calibrated, and an ensemble is the mean of calibrated probabilities; run "
        f"{called('evaluate')} checkpoint={place} first"
    )


def joint_calibration(
    parts: Sequence[Part], labels: Sequence[str], points: Sequence[str]
) -> tuple[dict[str, LabelCalibration], str]:
    """The operating points of an ensemble by label, and how they were chosen.

    The mean of calibrated probabilities is not calibrated again: its temperature is 1.
    """
    joint = _joint_validation(parts, labels)
    if joint is None:
        return {label: _mean_points(parts, label, points) for label in labels}, MEANS
    truth, probability = joint
    return {
        label: _points(truth[:, k], probability[:, k], points) for k, label in enumerate(labels)
    }, JOINT


def _joint_validation(parts: Sequence[Part], labels: Sequence[str]) -> tuple[Floats, Floats] | None:
    """Truth and mean probability [N, K] on the shared validation split; None if there is none."""
    if len({part.member.trained.checkpoint["split_fingerprint"] for part in parts}) > 1:
        return None
    tables = [part.validation() for part in parts]
    first = tables[0]
    if first is None or any(t is None or not t["row"].equals(first["row"]) for t in tables):
        return None
    means = np.mean([_of_table(part, table) for part, table in zip(parts, tables, strict=True)], 0)
    own = list(parts[0].member.labels.values())
    return first[own].to_numpy(float), means


def _of_table(part: Part, table: pd.DataFrame | None) -> Floats:
    """Calibrated probabilities [N, K] of a table of predictions."""
    assert table is not None
    names = [f"{label}_probability" for label in part.member.trained.labels]
    return part.probability(logit(table[names].to_numpy(float)))


def _points(truth: Floats, probability: Floats, points: Sequence[str]) -> LabelCalibration:
    known = np.isin(truth, [0, 1])
    logits = logit(probability[known])
    cuts = {name: float(sigmoid(choose_point(name, logits, truth[known]))) for name in points}
    return _uncalibrated(int(known.sum()), int((truth == 1).sum()), cuts)


def _mean_points(parts: Sequence[Part], label: str, points: Sequence[str]) -> LabelCalibration:
    own = [part.calibration.labels[part.member.labels[label]] for part in parts]
    cuts = {name: float(np.mean([each.points[name] for each in own])) for name in points}
    images, positives = (
        sum(getattr(each, name) for each in own) for name in ("images", "positives")
    )
    return _uncalibrated(images, positives, cuts)


def _uncalibrated(images: int, positives: int, cuts: Mapping[str, float]) -> LabelCalibration:
    return LabelCalibration(1.0, (1.0, 0.0), images, positives, dict(cuts), dict(cuts))
