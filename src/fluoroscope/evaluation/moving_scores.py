"""Scores of some images with how far each patient moves them, and the gap between two of them.

Arrays: N images, G patients of the whole evaluation, who have the numbers 0 to G - 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoroscope.evaluation.contents import LEVEL, Estimate
from fluoroscope.evaluation.intervals import shares
from fluoroscope.reporting.inference import Difference
from fluoroscope.statistics import Floats, auroc, logit_interval


@dataclass(frozen=True)
class Score:
    """A score between 0 and 1 of some of the images.

    Attributes:
        value: NaN if it is not defined.
        moves: how far each patient moves it [G]; the sum of squares is its variance over patients.
        of: the patients that it is computed from, bool [G]; the others have no moves.
        fewest: patients of the rarest class; the bounds of a score of 0 or 1 depend on it.
    """

    value: float
    moves: Floats
    of: NDArray[np.bool_]
    fewest: int

    def estimate(self, level: float = LEVEL) -> Estimate:
        """The score with its interval over patients, see `statistics.logit_interval`."""
        influence = self.moves[self.of] * _scale(int(self.of.sum()))
        return Estimate(self.value, *logit_interval(self.value, influence, self.fewest, level))


@dataclass(frozen=True)
class Share(Score):
    """A share of images, such as a sensitivity; its interval is that of `intervals.shares`.

    Attributes:
        part, whole: images of each of its patients that count, and of all.
    """

    part: Floats
    whole: Floats

    def estimate(self, level: float = LEVEL) -> Estimate:
        return shares(self.part[:, None], self.whole[:, None], level).at(0)


def _scale(patients: int) -> float:
    """The influence of a patient by how far it moves a score."""
    return math.sqrt(patients * max(1, patients - 1))


def auroc_score(
    score: ArrayLike, truth: ArrayLike, patient: NDArray[np.int64], total: int
) -> Score:
    """The AUROC of some images; its interval is that of `statistics.auroc_interval`.

    Args:
        score: [N].
        truth: [N]; only 1 and 0 count.
        patient: [N].
        total: G.
    """
    who, own = np.unique(patient, return_inverse=True)
    value, influence = auroc(score, truth, own)
    truth = np.asarray(truth)
    fewest = min(len(np.unique(patient[truth == kind])) for kind in (0, 1))
    return _spread(value, influence, who, total, fewest)


def share_score(
    counted: ArrayLike, among: ArrayLike, patient: NDArray[np.int64], total: int
) -> Share:
    """The share of some images among others, such as true positives among positives.

    Args:
        counted: bool [N]; only those of `among` count.
        among: bool [N].
        patient: [N].
        total: G.
    """
    among = np.asarray(among, dtype=bool)
    who, own = np.unique(patient[among], return_inverse=True)
    if not len(who):
        none = np.zeros(total, bool)
        return Share(math.nan, np.full(total, math.nan), none, 0, np.zeros(1), np.zeros(1))
    hits = np.bincount(own, np.asarray(counted)[among]).astype(float)
    images = np.bincount(own).astype(float)
    value = float(hits.sum() / images.sum())
    influence = len(who) * (hits - value * images) / images.sum()
    score = _spread(value, influence, who, total, len(who))
    return Share(score.value, score.moves, score.of, score.fewest, hits, images)


def _spread(
    value: float, influence: Floats, who: NDArray[np.int64], total: int, fewest: int
) -> Score:
    moves, of = np.zeros(total), np.zeros(total, bool)
    moves[who], of[who] = influence / _scale(len(who)), True
    return Score(value, moves, of, fewest)


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of the scores of several labels."""
    value = float(np.mean([score.value for score in scores]))
    moves = np.mean([score.moves for score in scores], axis=0)
    of = np.any([score.of for score in scores], axis=0)
    return Score(value, moves, of, min(score.fewest for score in scores))


@dataclass(frozen=True)
class Gap:
    """One score minus another; their patients may differ, or be the same."""

    one: Score
    other: Score

    @property
    def value(self) -> float:
        return self.one.value - self.other.value

    @cached_property
    def difference(self) -> Difference:
        """As a member of a family of differences (`inference.simultaneous`)."""
        moves = self.one.moves - self.other.moves
        return Difference([], np.array([self.value]), _scale(len(moves)) * moves[None])

    def estimate(self, level: float = LEVEL) -> Estimate:
        """The gap with an interval from those of the two scores.

        It keeps their skewness, and holds for small groups too: also for a score of 0 or 1, which
        has no spread.

        Source: G. Y. Zou, A. Donner, Construction of confidence limits about effect measures,
            Statistics in Medicine 27 (2008), with a correlation: G. Y. Zou, American Journal of
            Epidemiology 165 (2007).
        """
        (a, a_low, a_high), (b, b_low, b_high) = (
            score.estimate(level) for score in (self.one, self.other)
        )
        down = _distance(a - a_low, b_high - b, self._correlation)
        up = _distance(a_high - a, b - b_low, self._correlation)
        return Estimate(self.value, self.value - down, self.value + up)

    @cached_property
    def _correlation(self) -> float:
        sizes = np.linalg.norm(self.one.moves) * np.linalg.norm(self.other.moves)
        return float(self.one.moves @ self.other.moves / sizes) if sizes else 0.0


def _distance(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))
