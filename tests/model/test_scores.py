import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    roc_auc_score,
    roc_curve,
)

from fluoroscope.model.scores import (
    SCORES,
    choose_thresholds,
    score,
)

LABELS = ("effusion", "nodule", "hernia", "mass", "edema")
POSITIVE_ONLY, UNKNOWN = 3, 4  # columns


@pytest.fixture(scope="module")
def split():
    """217 images x 5 labels: many ties, NaN, a label without negatives and one all unknown."""
    rng = np.random.default_rng(3)
    target = (rng.random((217, 5)) < (0.4, 0.2, 0.1, 1.0, 0.5)).astype(np.float64)
    probability = np.round(np.clip(rng.normal(0.4 + 0.2 * target, 0.2), 0, 1), 2)
    target[rng.random(target.shape) < 0.2] = np.nan
    target[:, UNKNOWN] = np.nan
    return torch.tensor(probability), torch.tensor(target)


def known(split, k):
    p, y = (x[:, k].numpy() for x in split)
    return p[~np.isnan(y)], y[~np.isnan(y)].astype(int)


def test_scores_agree_with_scikit_learn(split):
    thresholds = torch.tensor([0.47, 0.5, 0.32, 0.6, 0.5], dtype=torch.double)
    scores = score(*split, thresholds, LABELS)
    for k, label in enumerate(LABELS[:3]):
        p, y = known(split, k)
        assert np.isin(thresholds[k].item(), p)  # a score on the threshold is called positive
        tn, fp, fn, tp = confusion_matrix(y, p >= thresholds[k].item()).ravel()
        expected = {
            "auroc": roc_auc_score(y, p),
            "auprc": average_precision_score(y, p),
            "accuracy": (tp + tn) / len(y),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "brier": brier_score_loss(y, p),
        }
        actual = {name: scores[f"{name}/{label}"] for name in expected}
        assert actual == pytest.approx(expected, abs=1e-6)


def test_scores_that_the_data_cannot_define_are_nan_and_left_out_of_the_mean(split):
    scores = score(*split, torch.full((5,), 0.5), LABELS)
    p, y = known(split, POSITIVE_ONLY)
    assert (y == 1).all()
    assert math.isnan(scores["auroc/mass"])
    assert math.isnan(scores["specificity/mass"])
    assert scores["auprc/mass"] == 1
    assert scores["sensitivity/mass"] == scores["accuracy/mass"] == (p >= 0.5).mean()
    assert all(math.isnan(scores[f"{name}/edema"]) for name in SCORES)
    for name, defined in {"auroc": 3, "specificity": 3, "brier": 4, "sensitivity": 4}.items():
        parts = [scores[f"{name}/{label}"] for label in LABELS[:defined]]
        assert scores[name] == pytest.approx(np.mean(parts), abs=1e-12)


def test_a_label_without_positives_has_only_the_scores_of_negatives():
    p = torch.tensor([[0.1], [0.2], [0.7]])
    scores = score(p, torch.zeros(3, 1), torch.tensor([0.5]), ["nodule"])
    assert all(math.isnan(scores[name]) for name in ("auroc", "auprc", "sensitivity"))
    assert scores["specificity"] == scores["accuracy"] == 2 / 3
    assert scores["brier"] == pytest.approx((0.01 + 0.04 + 0.49) / 3)


def test_every_key_is_there_once_for_the_mean_and_for_each_label(split):
    scores = score(*split, torch.full((5,), 0.5), LABELS)
    assert list(scores)[: len(SCORES)] == list(SCORES)
    assert set(scores) == {*SCORES, *(f"{name}/{label}" for name in SCORES for label in LABELS)}


def test_probabilities_in_single_precision_are_not_taken_for_logits():
    """All above 0.5: a sigmoid would keep the order, not the Brier score."""
    p, y = torch.tensor([[0.6], [0.8], [0.9]]), torch.tensor([[0.0], [1.0], [1.0]])
    assert score(p, y, torch.tensor([0.7]), ["mass"])["brier"] == pytest.approx(0.41 / 3, abs=1e-7)
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        score(p * 2, y, torch.tensor([0.7]), ["mass"])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        score(p * math.nan, y, torch.tensor([0.7]), ["mass"])


def test_thresholds_reach_the_largest_youden_j_of_scikit_learn(split):
    thresholds = choose_thresholds(*split)
    for k in range(3):
        p, y = known(split, k)
        fpr, tpr, cuts = roc_curve(y, p, drop_intermediate=False)
        best = np.argmax(np.round(tpr - fpr, 12))  # the highest cut of equal J
        below = np.max(p[p < cuts[best]])
        assert thresholds[k] == pytest.approx((cuts[best] + below) / 2, abs=1e-15)
        called = p >= thresholds[k].item()
        assert called[y == 1].mean() - called[y == 0].mean() == pytest.approx(max(tpr - fpr))


def test_of_equal_j_the_highest_threshold_is_taken():
    """J is 1/2 from 0.4 up and from 0.2 up."""
    p, y = torch.tensor([[0.1], [0.2], [0.3], [0.4]]), torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert choose_thresholds(p, y).tolist() == pytest.approx([0.35])


def test_threshold_is_one_half_where_nothing_can_be_chosen(split):
    thresholds = choose_thresholds(*split)
    assert thresholds[POSITIVE_ONLY] == thresholds[UNKNOWN] == 0.5
    backwards = choose_thresholds(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0]]))
    assert backwards.tolist() == [0.5]


def test_soft_targets_are_scored_as_unknown_ones(split):
    p, y = split
    soft = torch.where(y.isnan(), 0.7, y)
    thresholds = choose_thresholds(p, y)
    torch.testing.assert_close(choose_thresholds(p, soft), thresholds, rtol=0, atol=0)
    expected, found = (score(p, target, thresholds, LABELS) for target in (y, soft))
    assert list(expected) == list(found)
    np.testing.assert_array_equal(list(found.values()), list(expected.values()))


def test_shapes_that_differ_are_refused(split):
    with pytest.raises(ValueError, match="the same shape"):
        choose_thresholds(split[0], split[1][:-1])
