import math
from statistics import NormalDist

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
    _draws,
    _ranks,
    auroc_interval,
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


@pytest.fixture(scope="module")
def patients():
    return np.random.default_rng(5).integers(60, size=217)


def known(split, k):
    p, y = (x[:, k].numpy() for x in split)
    return p[~np.isnan(y)], y[~np.isnan(y)].astype(int)


def macro_auroc(p, y, weight=None):
    """scikit-learn's, over the labels [N, K] with both classes in rows of positive weight."""
    weight = np.ones(len(p)) if weight is None else weight
    values = []
    for k in range(p.shape[1]):
        keep = ~np.isnan(y[:, k]) & (weight > 0)
        if len(np.unique(y[keep, k])) == 2:
            values.append(roc_auc_score(y[keep, k], p[keep, k], sample_weight=weight[keep]))
    return np.mean(values) if values else math.nan


def binormal(n, distance, seed):
    """Scores [n, 1] of two normal classes, their means `distance` apart, and targets [n, 1]."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0.0, 1.0], n // 2)
    p = torch.sigmoid(torch.tensor(rng.normal(size=n) + distance * y))
    return p[:, None], torch.tensor(y)[:, None]


def delong_sd(p, y):
    """Standard error of one AUROC from its placement values (DeLong et al. 1988)."""
    pos, neg = p[y == 1], p[y == 0]
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    return math.sqrt(wins.mean(1).var(ddof=1) / len(pos) + wins.mean(0).var(ddof=1) / len(neg))


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
        actual = {name: scores[f"{name}/{label}"] for name in SCORES}
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
    assert list(scores)[:6] == list(SCORES)
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


def test_bootstrap_draws_whole_patients(patients):
    weight = np.concatenate(list(_draws(patients, resamples=70, seed=0)), axis=1)
    assert weight.shape == (217, 70)
    for patient in range(60):
        assert (np.ptp(weight[patients == patient], axis=0) == 0).all()
    per_patient = weight[[np.flatnonzero(patients == patient)[0] for patient in range(60)]]
    assert (per_patient.sum(0) == 60).all()
    assert per_patient.mean() == 1
    assert per_patient.var() == pytest.approx(1, abs=0.1)  # binomial(60, 1/60): 0.983


def test_weighted_auroc_agrees_with_scikit_learn_and_with_repeated_rows(split, patients):
    p, y = (x.numpy() for x in split)
    weight = next(_draws(patients, resamples=9, seed=1))
    values = np.stack([rank.auroc(weight) for rank in _ranks(*split) if rank.has_both])
    assert values.shape == (3, 9)
    for r in range(9):
        rows = np.repeat(np.arange(217), weight[:, r].astype(int))
        for k in range(3):
            assert values[k, r] == pytest.approx(macro_auroc(p[:, [k]], y[:, [k]], weight[:, r]))
            assert values[k, r] == pytest.approx(macro_auroc(p[rows][:, [k]], y[rows][:, [k]]))


def test_interval_agrees_with_a_loop_over_scikit_learn(split, patients):
    p, y = (x.numpy() for x in split)
    loop = [
        macro_auroc(p, y, weight)
        for draws in _draws(patients, resamples=75, seed=4)
        for weight in draws.T
    ]
    expected = np.quantile(loop, [0.05, 0.95])
    actual = auroc_interval(*split, patients, resamples=75, level=0.9, seed=4)
    assert actual == pytest.approx(expected, abs=1e-12)


def test_resample_that_lacks_a_class_leaves_the_label_out():
    """Label 0's only positive is missing from 37 % of the resamples; label 1 is always right."""
    y = torch.zeros(20, 2)
    y[0, 0] = 1
    y[::2, 1] = 1
    p = torch.stack([torch.linspace(0.1, 0.9, 20), 0.2 + 0.6 * y[:, 1]], dim=1)
    low, high = auroc_interval(p, y, range(20), resamples=400)
    assert low == pytest.approx(0.5)  # label 0 always last: 0.0, and their mean 0.5
    assert high == pytest.approx(1)  # label 0 left out


def test_interval_width_is_that_of_delong():
    p, y = binormal(2000, 1.0, seed=0)
    low, high = auroc_interval(p, y, range(2000), resamples=2000)
    sd = delong_sd(p[:, 0].numpy(), y[:, 0].numpy())
    assert (high - low) / (2 * NormalDist().inv_cdf(0.975) * sd) == pytest.approx(1, abs=0.06)
    assert low < roc_auc_score(y, p) < high


def test_interval_covers_the_true_auroc_as_often_as_it_says():
    """Binormal truth Phi(d / sqrt 2); 100 intervals at 80 %, three standard errors of tolerance."""
    truth = NormalDist().cdf(1 / math.sqrt(2))
    intervals = [
        auroc_interval(*binormal(200, 1.0, seed), range(200), resamples=200, level=0.8)
        for seed in range(100)
    ]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered == pytest.approx(0.8, abs=0.12)


def test_copies_within_a_patient_tell_nothing_new_and_as_patients_they_would():
    p, y = binormal(300, 1.0, seed=2)
    patients = np.array([f"patient {i}" for i in range(300)])
    once = auroc_interval(p, y, patients)
    copies = [x.repeat_interleave(4, dim=0) for x in (p, y)]
    assert auroc_interval(*copies, patients.repeat(4)) == pytest.approx(once, abs=1e-12)
    low, high = auroc_interval(*copies, range(1200))
    assert (high - low) / (once[1] - once[0]) == pytest.approx(0.5, abs=0.05)


def test_interval_is_undefined_without_two_classes_and_refuses_other_lengths(split, patients):
    undefined = [x[:, [POSITIVE_ONLY, UNKNOWN]] for x in split]
    assert all(map(math.isnan, auroc_interval(*undefined, patients)))
    with pytest.raises(ValueError, match="217 images need as many patients"):
        auroc_interval(*split, patients[:-1])
    with pytest.raises(ValueError, match="twice"):
        choose_thresholds(split[0], split[1][:-1])


def test_soft_targets_are_scored_as_unknown_ones(split, patients):
    p, y = split
    soft = torch.where(y.isnan(), 0.7, y)
    thresholds = choose_thresholds(p, y)
    torch.testing.assert_close(choose_thresholds(p, soft), thresholds, rtol=0, atol=0)
    expected, found = (score(p, target, thresholds, LABELS) for target in (y, soft))
    assert list(expected) == list(found)
    np.testing.assert_array_equal(list(found.values()), list(expected.values()))
    assert auroc_interval(p, soft, patients) == auroc_interval(p, y, patients)
