import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

from fluoroscope.errors import InputError
from fluoroscope.model.scores import choose_thresholds
from fluoroscope.trained.operating_points import POINTS, choose_point


def drawn(seed, images=90, ties=False):
    rng = np.random.default_rng(seed)
    truth = (rng.random(images) < 0.3).astype(float)
    score = rng.normal(truth, 1.0)
    truth[rng.random(images) < 0.1] = np.nan
    return np.round(score) if ties else score, truth


def rates(threshold, score, truth):
    called = score >= threshold
    return called[truth == 1].mean(), (~called[truth == 0]).mean()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", POINTS[1:])
def test_no_better_threshold_reaches_what_was_asked(name, seed, ties):
    score, truth = drawn(seed, ties=ties)
    kind, percent = name.split("_")
    found = rates(choose_point(name, score, truth), score, truth)
    known = ~np.isnan(truth)
    fpr, tpr, _ = roc_curve(truth[known], score[known], drop_intermediate=False)
    if kind == "sensitivity":
        expected = (1 - fpr)[tpr >= int(percent) / 100].max()
        assert found[0] >= int(percent) / 100
        assert found[1] == pytest.approx(expected)
    else:
        expected = tpr[1 - fpr >= int(percent) / 100].max()
        assert found[1] >= int(percent) / 100
        assert found[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_youden_is_the_threshold_of_the_training(seed):
    score, truth = drawn(seed)
    probability = 1 / (1 + np.exp(-score))
    own = choose_thresholds(torch.tensor(probability)[:, None], torch.tensor(truth)[:, None])
    found = choose_point("youden", probability, truth)
    assert rates(found, probability, truth) == rates(float(own), probability, truth)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("truth", [[1, 1], [0, 0], [np.nan, 1], []])
def test_without_a_class_there_is_none(name, truth):
    assert math.isnan(choose_point(name, np.arange(len(truth)), truth))


@pytest.mark.parametrize("name", ["sensitivity", "sensitivity_100", "f1", "specificity_0", ""])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="sensitivity_90"):
        choose_point(name, [0, 1], [0, 1])


@pytest.mark.parametrize("truth", [[0, 1] * 20, [1, 0, 0] * 13])
def test_constant_scores_have_no_youden_threshold(truth):
    assert math.isnan(choose_point("youden", np.full(len(truth), 0.3), truth))


def test_a_score_that_is_worse_than_chance_has_no_youden_threshold():
    score, truth = np.arange(40.0), np.arange(40) < 20
    assert math.isnan(choose_point("youden", score, truth))
    assert choose_point("youden", -score, truth) == -19.5


@pytest.mark.parametrize("seed", range(20))
def test_youden_is_better_than_chance_or_missing(seed):
    score, truth = drawn(seed, images=25, ties=seed % 2 == 0)
    score = np.where(truth == 1, (seed % 3 - 1) * score, score)
    known = np.isin(truth, [0, 1])
    fpr, tpr, _ = roc_curve(truth[known], score[known])
    sensitivity, specificity = rates(choose_point("youden", score, truth), score, truth)
    if (tpr - fpr).max() > 1e-9:
        assert sensitivity + specificity - 1 == pytest.approx((tpr - fpr).max())
    else:
        assert math.isnan(choose_point("youden", score, truth))
