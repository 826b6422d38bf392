import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng
from scipy import stats
from sklearn.metrics import roc_auc_score

from fluoroscope import statistics
from fluoroscope.statistics import (
    auroc,
    auroc_interval,
    count_classes,
    crossed,
    draws,
    holm,
    macro_auroc,
    paired_p,
    percentile_interval,
    seeds_needed,
    t_interval,
)
from tests.reporting.folders import LABELS, predictions


def scored(images=90, patients=31, levels=12):
    """Scores with ties, truths with unknowns, patients of one to several images."""
    rng = default_rng(3)
    truth = (rng.random(images) < 0.35).astype(float)
    score = np.round(levels * (0.4 * truth + rng.random(images))) / levels
    truth[:7] = np.nan
    return score, truth, rng.permutation(np.r_[np.arange(patients), rng.integers(0, 9, 59)])


def test_auroc_is_that_of_scikit_learn():
    score, truth, patient = scored()
    known = ~np.isnan(truth)
    ours = auroc(score, truth, patient, np.ones((31, 1)))
    assert ours == pytest.approx(roc_auc_score(truth[known], score[known]), abs=1e-12)


def test_a_weight_is_a_patient_whose_images_are_there_so_often():
    score, truth, patient = scored()
    weight = draws(31, resamples=200, seed=5)
    ours = auroc(score, truth, patient, weight)
    for r in range(0, 200, 7):
        rows = np.concatenate(
            [np.flatnonzero(patient == g).repeat(weight[g, r]) for g in range(31)]
        )
        rows = rows[~np.isnan(truth[rows])]
        assert ours[r] == pytest.approx(roc_auc_score(truth[rows], score[rows]), abs=1e-12)


def test_a_resample_without_a_class_has_no_auroc_and_leaves_its_label_out():
    table = pd.DataFrame(
        {
            **{"group": [7, 7, 3, 9], "A": [1.0, 0, 0, 0], "A_probability": [0.9, 0.1, 0.2, 0.3]},
            **{"B": [0.0, 1, 0, 1], "B_probability": [0.5, 0.4, 0.1, 0.45]},
        }
    )
    weight = np.array([[1, 0, 2, 0], [1, 2, 1, 0], [1, 1, 0, 3]], dtype=float)
    ours = macro_auroc(table, ["A", "B"], weight)
    # By hand: all four images; the last two alone (A without a positive); the first patient twice
    # and the second once; the third patient alone.
    expected = [(1 + 2 / 4) / 2, 1.0, (1 + 2 / 6) / 2, math.nan]
    np.testing.assert_allclose(ours, expected)


def test_macro_auroc_is_the_mean_over_labels():
    table = predictions()
    expected = []
    for label in LABELS:
        known = table.dropna(subset=label)
        expected.append(roc_auc_score(known[label], known[f"{label}_probability"]))
    ours = macro_auroc(table, LABELS, np.ones((table["group"].nunique(), 1)))
    assert ours == pytest.approx(np.mean(expected), abs=1e-12)


def test_blocks_of_resamples_do_not_change_them():
    score, truth, patient = scored()
    weight = draws(31, resamples=300)
    whole = auroc(score, truth, patient, weight)
    parts = [auroc(score, truth, patient, weight[:, r : r + 1])[0] for r in range(300)]
    np.testing.assert_allclose(whole, parts, atol=1e-13)


def test_draws_are_with_replacement_and_repeatable():
    weight = draws(17, resamples=4000, seed=2)
    assert (weight.sum(0) == 17).all()
    np.testing.assert_allclose(weight.mean(1), 1, atol=0.08)  # 5 standard errors
    np.testing.assert_allclose(weight.var(1), 1 - 1 / 17, atol=0.15)
    np.testing.assert_array_equal(weight, draws(17, resamples=4000, seed=2))


def test_crossed_means_repeat_whole_seeds():
    values = default_rng(1).normal(size=(4, 50))
    counts = draws(4, 50, seed=9)
    naive = [values[np.arange(4).repeat(counts[:, r].astype(int)), r].mean() for r in range(50)]
    np.testing.assert_allclose(crossed(values, seed=9), naive)


def test_crossed_spread_adds_that_of_the_seeds_to_that_of_the_patients():
    """Var = sigma_p^2 + sigma_s^2 (S - 1)/S^2 for effects that add up, without interaction."""
    rng, num_seeds = default_rng(4), 5
    seeds = rng.normal(size=(num_seeds, 1))
    patients = 0.7 * rng.normal(size=(1, 20_000))
    expected = 0.49 + seeds.var() / num_seeds
    assert crossed(seeds + patients).var() == pytest.approx(expected, rel=0.05)


def test_percentile_interval_leaves_undefined_resamples_out():
    values = np.r_[np.arange(101.0), math.nan]
    assert percentile_interval(values, 0.9) == pytest.approx((5, 95))
    assert all(map(math.isnan, percentile_interval(np.full(3, math.nan))))


def test_p_is_that_of_the_t_distribution():
    differences = np.array([0.02, -0.01, 0.03, 0.015])
    t = differences.mean() / (differences.std(ddof=1) / 2)
    assert paired_p(differences) == pytest.approx(2 * stats.t.cdf(-abs(t), 3), rel=1e-12)
    a = np.array([0.7, 0.75, 0.72, 0.71])
    assert paired_p(differences) == pytest.approx(stats.ttest_rel(a + differences, a).pvalue)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([0.0, 0, 0], 1), ([1e-17, 0, 0], 1), ([0.02, 0.02], 0), ([0.02], math.nan), ([], math.nan)],
)
def test_p_without_spread(differences, expected):
    assert paired_p(differences) == pytest.approx(expected, nan_ok=True)


def test_holm_by_hand():
    # Sorted .01 x 4, .02 x 3, .03 x 2, .04 x 1, never falling; NaN is no test.
    ours = holm([0.04, 0.01, math.nan, 0.03, 0.02])
    np.testing.assert_allclose(ours, [0.06, 0.04, math.nan, 0.06, 0.06])
    assert np.isnan(holm([math.nan])).all()


@pytest.mark.parametrize("spread", [0.004, 0.011, 0.05])
def test_seeds_needed_are_the_fewest_with_the_power(spread):
    differences = spread * np.array([-1, 0, 1.0])  # standard deviation: spread

    def power(n):
        centre, bound = 0.01 / spread * math.sqrt(n), stats.t.ppf(0.975, n - 1)
        return stats.nct.sf(bound, n - 1, centre) + stats.nct.cdf(-bound, n - 1, centre)

    n = int(seeds_needed(differences))
    assert power(n) >= 0.8 > power(n - 1)


def test_seeds_needed_hold_in_simulation():
    n = int(seeds_needed([-0.01, 0.0, 0.01]))
    studies = default_rng(0).normal(0.01, 0.01, size=(20_000, n))
    seen = (stats.ttest_1samp(studies, 0, axis=1).pvalue < 0.05).mean()
    assert n == 10
    assert seen == pytest.approx(0.803, abs=0.012)  # 4 standard errors


def test_seeds_needed_without_spread():
    assert seeds_needed([0.3, 0.3]) == 2
    assert math.isnan(seeds_needed([0.3]))


def test_t_interval_is_that_of_scipy():
    values = [0.1, 0.25, 0.2, math.nan, 0.4]
    known = np.array(values)[[0, 1, 2, 4]]
    expected = stats.ttest_1samp(known, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((known.mean(), expected.low, expected.high))
    assert t_interval([0.5])[0] == 0.5
    assert math.isnan(t_interval([0.5])[1])


def test_the_bootstrap_covers_the_true_auroc():
    """Normal scores, patients of three images that share half of their variance; 95 % of 300
    intervals, give or take 3 standard errors of 1.3 %, and the percentile's own 1 to 2 % too few.
    """
    rng, true, covered = default_rng(11), stats.norm.cdf(1 / math.sqrt(2)), 0
    patient = np.arange(80).repeat(3)
    for _ in range(300):
        truth = rng.integers(0, 2, 80)[patient].astype(float)
        score = truth + math.sqrt(0.5) * (rng.normal(size=80)[patient] + rng.normal(size=240))
        low, high = percentile_interval(auroc(score, truth, patient, draws(80, 300)))
        covered += low <= true <= high
    assert 0.89 < covered / 300 < 0.99


def test_the_crossed_bootstrap_covers_a_difference_of_models_of_several_seeds():
    """Two activations as good as each other, on the same patients, seven seeds each with luck of
    its own; 95 % of 200 intervals, give or take 3 standard errors of 1.5 %, on the wide side.
    """
    rng, weight, covered = default_rng(12), draws(60, 250), 0
    for _ in range(200):
        truth, shared = rng.integers(0, 2, 60).astype(float), rng.normal(size=60)
        luck = rng.normal(1, 0.3, size=(2, 7, 1))
        score = luck * truth + shared + rng.normal(size=(2, 7, 60))
        values = [[auroc(s, truth, np.arange(60), weight) for s in model] for model in score]
        low, high = percentile_interval(crossed(np.subtract(*values)))
        covered += low <= 0 <= high
    assert 0.9 < covered / 200 <= 1


def test_many_seeds_are_enough_for_any_spread():
    assert seeds_needed([-1.0, 1.0]) < statistics.MANY_SEEDS


def table_of(score, truth, patient):
    """Predictions of one label or of several, by column."""
    columns = {"group": patient}
    for k, (s, y) in enumerate(zip(np.atleast_2d(score), np.atleast_2d(truth), strict=True)):
        columns |= {str(k): y, f"{k}_probability": s}
    return pd.DataFrame(columns)


def binormal(n, distance, seed):
    """Predictions of two normal classes, their means `distance` apart, a patient per image."""
    truth = np.repeat([0.0, 1.0], n // 2)
    score = default_rng(seed).normal(size=n) + distance * truth
    return table_of(score, truth, np.arange(n))


def delong_sd(score, truth):
    """Standard error of one AUROC from its placement values (DeLong et al. 1988)."""
    pos, neg = score[truth == 1], score[truth == 0]
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    return math.sqrt(wins.mean(1).var(ddof=1) / len(pos) + wins.mean(0).var(ddof=1) / len(neg))


def test_the_interval_is_that_of_a_loop_over_scikit_learn():
    score, truth, patient = scored()
    order = pd.factorize(patient)[0]  # the first patient that appears has the first weight
    known = ~np.isnan(truth)
    loop = [
        roc_auc_score(truth[known], score[known], sample_weight=weight[order][known])
        for weight in draws(31, resamples=75, seed=4).T
    ]
    ours = auroc_interval(table_of(score, truth, patient), ["0"], resamples=75, level=0.9, seed=4)
    assert ours == pytest.approx(np.quantile(loop, [0.05, 0.95]), abs=1e-12)


def test_a_resample_that_lacks_a_class_leaves_its_label_out_of_the_interval():
    """Label 0's two positives are missing from 12 % of the resamples; label 1 is always right."""
    truth = np.zeros((2, 20))
    truth[0, :2] = 1
    truth[1, ::2] = 1
    score = np.stack([np.linspace(0.1, 0.9, 20), 0.2 + 0.6 * truth[1]])
    low, high = auroc_interval(table_of(score, truth, range(20)), ["0", "1"])
    assert low == pytest.approx(0.5)  # label 0 always last: 0.0, and their mean 0.5
    assert high == pytest.approx(1)  # label 0 left out


def test_the_interval_is_as_wide_as_delongs():
    table = binormal(2000, 1.0, seed=0)
    low, high = auroc_interval(table, ["0"], resamples=2000)
    sd = delong_sd(table["0_probability"].to_numpy(), table["0"].to_numpy())
    assert (high - low) / (2 * NormalDist().inv_cdf(0.975) * sd) == pytest.approx(1, abs=0.06)
    assert low < roc_auc_score(table["0"], table["0_probability"]) < high


def test_the_interval_covers_the_true_auroc_as_often_as_it_says():
    """Binormal truth Phi(d / sqrt 2); 100 intervals at 80 %, three standard errors of tolerance."""
    truth = NormalDist().cdf(1 / math.sqrt(2))
    intervals = [
        auroc_interval(binormal(200, 1.0, seed), ["0"], resamples=200, level=0.8)
        for seed in range(100)
    ]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered == pytest.approx(0.8, abs=0.12)


def test_copies_within_a_patient_add_nothing_and_as_patients_they_would():
    table = binormal(300, 1.0, seed=2)
    once = auroc_interval(table, ["0"])
    copies = table.loc[table.index.repeat(4)]
    assert auroc_interval(copies, ["0"]) == pytest.approx(once, abs=1e-12)
    low, high = auroc_interval(copies.assign(group=range(1200)), ["0"])
    assert (high - low) / (once[1] - once[0]) == pytest.approx(0.5, abs=0.05)


def test_the_interval_is_undefined_without_two_classes():
    table = table_of([0.1, 0.2, 0.3], [1, 1, math.nan], [1, 2, 3])
    assert all(map(math.isnan, auroc_interval(table, ["0"])))


def test_images_of_one_patient_give_no_interval():
    """No resample holds another positive patient, however many images the patient has."""
    truth, score = np.zeros(30), np.linspace(0, 1, 30)
    truth[20:26] = 1
    patient = np.arange(30)
    assert not math.isnan(auroc_interval(table_of(score, truth, patient), ["0"])[0])
    patient[20:26] = 20
    for truths in (truth, 1 - truth):  # one positive, and one negative patient
        assert all(map(math.isnan, auroc_interval(table_of(score, truths, patient), ["0"])))
    both = np.stack([truth, np.arange(30) % 2])
    table = table_of(np.stack([score, score]), both, patient)
    assert all(map(math.isnan, auroc_interval(table, ["0", "1"])))
    assert count_classes(table, "0") == {"positive": (6, 1), "negative": (24, 24)}
    both[0] = 0  # an absent class is not scored, and takes no interval away
    assert not math.isnan(
        auroc_interval(table_of(np.stack([score] * 2), both, patient), ["0", "1"])[0]
    )
