"""Equal scores, scores at the threshold, few patients, and chance in the calibration error."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from fluoroscope.evaluation.counting import count
from fluoroscope.evaluation.intervals import shares
from fluoroscope.evaluation.quality import bin_of, quality
from fluoroscope.evaluation.ranking import auprc
from fluoroscope.evaluation.resampling import Patients
from tests.evaluation.cases import predictions, resampled


def test_a_score_at_the_threshold_is_positive():
    patients, rows = Patients([0, 1, 1, 2], draws=3), np.ones(4, bool)
    found = count([0.2, 0.5, 0.5, 0.7], [1, 1, 0, 0], [0.7, 0.5, 0.51], rows, patients)
    assert found.tp.sum(0).tolist() == [0, 1, 0]
    assert found.fp.sum(0).tolist() == [1, 2, 1]
    assert found.fn.sum(0).tolist() == [2, 1, 2]
    assert found.images.sum(0).tolist() == [4, 4, 4]
    assert found.fp.tolist() == [[0, 0, 0], [0, 1, 0], [1, 1, 1]]


def test_a_probability_of_one_lies_in_the_last_bin():
    assert bin_of(np.array([0, 1 / 15, 0.5, 1])).tolist() == [0, 1, 7, 14]


def test_equal_scores_are_one_step():
    table = predictions()
    table["Disc_probability"] = table["Disc_probability"].round(1)
    patients = Patients(table["group"], draws=20)
    score, truth = table["Disc_probability"], table["Disc"]
    value, draws = auprc(score, truth, patients.number, patients)
    assert value.value == pytest.approx(metrics.average_precision_score(truth, score))
    again = [
        metrics.average_precision_score(t["Disc"], t["Disc_probability"])
        for t in resampled(table, patients)
    ]
    assert draws == pytest.approx(again, rel=1e-5)


def test_few_patients_are_worth_fewer_images():
    """Korn and Graubard (1998), by hand: 8 patients with 6 images, which differ in their share."""
    whole, right = np.full(8, 6.0), np.array([6.0, 6, 5, 4, 3, 2, 1, 5])
    share = right.sum() / 48
    variance = 8 / 7 * ((right - share * whole) ** 2).sum() / 48**2
    worth = share * (1 - share) / variance * (stats.t.isf(0.025, 47) / stats.t.isf(0.025, 7)) ** 2
    found = shares(right[:, None], whole[:, None]).at(0)
    assert found.low == pytest.approx(stats.beta.ppf(0.025, share * worth, (1 - share) * worth + 1))
    assert found.high == pytest.approx(
        stats.beta.ppf(0.975, share * worth + 1, (1 - share) * worth)
    )


def test_an_error_that_chance_explains_reaches_zero():
    """The calibration error of right probabilities is never 0 in a sample."""
    rng, lows = np.random.default_rng(0), []
    for sharpness in [1.0] * 20 + [3.0]:
        group = np.repeat(np.arange(100), 2)
        p = rng.beta(2, 3, len(group))
        truth = (rng.random(len(group)) < p).astype(float)
        odds = (p / (1 - p)) ** sharpness
        patients = Patients(group, draws=200)
        own, _ = quality(odds / (1 + odds), truth, np.ones(len(p), bool), patients)
        assert own.ece.low <= own.ece.value <= own.ece.high
        assert own.ece.value > 0.03
        lows.append(own.ece.low)
    assert np.mean(np.array(lows[:-1]) == 0) >= 0.9
    assert lows[-1] > 0
