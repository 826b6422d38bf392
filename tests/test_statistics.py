import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmarks import placebo
from fluoroscope.statistics import (
    auroc,
    auroc_interval,
    count_classes,
    logit_interval,
    macro_auroc,
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
    ours = auroc(score, truth, patient)[0]
    assert ours == pytest.approx(roc_auc_score(truth[known], score[known]), abs=1e-12)


def test_the_influence_is_the_derivative_by_a_patients_weight():
    score, truth, patient = scored()
    known, step = ~np.isnan(truth), 1e-6
    influence = auroc(score, truth, patient)[1]
    for g in range(31):
        weight = 1 + step * np.outer([1, -1], patient == g)
        up, down = (
            roc_auc_score(truth[known], score[known], sample_weight=w[known]) for w in weight
        )
        assert influence[g] / 31 == pytest.approx((up - down) / (2 * step), abs=1e-8)
    assert influence.sum() == pytest.approx(0, abs=1e-10)


def test_macro_auroc_is_the_mean_over_labels_that_have_both_classes():
    table = predictions()
    expected, influences = [], []
    for label in LABELS:
        known = table.dropna(subset=label)
        expected.append(roc_auc_score(known[label], known[f"{label}_probability"]))
        influences.append(macro_auroc(table, [label])[1])
    value, influence = macro_auroc(table, LABELS)
    assert value == pytest.approx(np.mean(expected), abs=1e-12)
    np.testing.assert_allclose(influence, np.mean(influences, axis=0))
    table["None"], table["None_probability"] = 0.0, 0.5
    assert macro_auroc(table, [*LABELS, "None"])[0] == value
    assert math.isnan(macro_auroc(table, ["None"])[0])


def test_the_bootstrap_over_patients_has_the_same_spread():
    """An independent route: repeat whole patients, and score with scikit-learn."""
    table, rng = predictions(images=150, patients=60), default_rng(3)
    groups = [rows for _, rows in table.dropna().groupby("group")]
    values = []
    for _ in range(200):
        drawn = pd.concat([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        values.append(roc_auc_score(drawn["Mass"], drawn["Mass_probability"]))
    influence = macro_auroc(table.dropna(), ["Mass"])[1]
    sd = math.sqrt(influence.var(ddof=1) / len(influence))
    assert sd == pytest.approx(np.std(values), rel=0.15)  # 3 standard errors of 5 %


def in_folds(table, folds=4):
    """Patients in folds whose models differ in scale and order, and the AUROC of each fold."""
    fold = table["group"].to_numpy() % folds
    for label in LABELS:
        table[f"{label}_probability"] = table[f"{label}_probability"] * (fold + 1.0) ** 3 - 9 * fold
    return table, fold


def within_folds(table, fold, label, weight=None):
    """The mean over folds of scikit-learn's AUROC, weighted by the pairs of each."""
    values, pairs = [], []
    for k in np.unique(fold):
        rows = (fold == k) & table[label].notna().to_numpy()
        truth, score = table.loc[rows, label], table.loc[rows, f"{label}_probability"]
        pairs.append((truth == 1).sum() * (truth == 0).sum())
        own = None if weight is None else weight[rows]
        values.append(roc_auc_score(truth, score, sample_weight=own))
    return np.average(values, weights=pairs)


def test_only_pairs_of_one_fold_count():
    table, fold = in_folds(predictions(images=130, patients=41))
    expected = np.mean([within_folds(table, fold, label) for label in LABELS])
    assert macro_auroc(table, LABELS, fold)[0] == pytest.approx(expected, abs=1e-12)
    # The scale and the order of the folds' scores do not matter; across folds they would.
    plain = predictions(images=130, patients=41)
    assert macro_auroc(plain, LABELS, fold)[0] == pytest.approx(expected, abs=1e-12)
    assert abs(macro_auroc(table, LABELS)[0] - expected) > 0.02
    one = np.full(len(plain), 3)
    np.testing.assert_array_equal(macro_auroc(plain, LABELS, one)[1], macro_auroc(plain, LABELS)[1])


def test_a_fold_without_one_class_has_no_pairs():
    table, fold = in_folds(predictions(images=130, patients=41))
    without = table.assign(Mass=table["Mass"].where(fold != 2, 0.0))
    expected = within_folds(without[fold != 2], fold[fold != 2], "Mass")
    value, influence = macro_auroc(without, ["Mass"], fold)
    assert value == pytest.approx(expected, abs=1e-12)
    alone = without.loc[fold == 2, "group"].unique()
    assert (influence[np.isin(pd.factorize(without["group"])[1], alone)] == 0).all()


def test_the_influence_over_folds_is_the_derivative_by_a_patients_weight():
    """Times the correction for the few patients of a fold."""
    table, fold = in_folds(predictions(images=130, patients=41))
    influence, step = macro_auroc(table, LABELS, fold)[1], 1e-6
    patient = pd.factorize(table["group"])[0]
    for g in range(0, len(influence), 5):
        up, down = (
            np.mean([within_folds(table, fold, label, 1 + s * (patient == g)) for label in LABELS])
            for s in (step, -step)
        )
        of_fold = len(set(patient[fold == fold[patient == g][0]]))
        scale = math.sqrt(of_fold / (of_fold - 1) * (1 - 1 / len(influence)))
        expected = scale * (up - down) / (2 * step)
        assert influence[g] / len(influence) == pytest.approx(expected, abs=1e-7)


def test_the_variance_over_folds_is_that_of_independent_folds():
    table, fold = in_folds(predictions(images=130, patients=41))
    influence = macro_auroc(table, ["Mass"], fold)[1]
    variance, pairs = 0.0, []
    for k in range(4):
        truth = table.loc[fold == k, "Mass"]
        pairs.append((truth == 1).sum() * (truth == 0).sum())
    for k, share in enumerate(pairs / np.sum(pairs)):
        alone = macro_auroc(table[fold == k], ["Mass"])[1]
        variance += share**2 * alone.var(ddof=1) / len(alone)
        start = pd.factorize(table["group"])[0][fold == k]
        assert influence[np.unique(start)].sum() == pytest.approx(0, abs=1e-9)
    assert influence.var(ddof=1) / len(influence) == pytest.approx(variance, rel=1e-9)


def test_models_that_test_the_same_patients_are_averaged_and_a_patient_counts_once():
    tables = [predictions(seed) for seed in (1, 2, 3)]
    fold = np.repeat([1, 2, 3], len(tables[0]))
    value, influence = macro_auroc(pd.concat(tables), LABELS, fold)
    alone = [macro_auroc(table, LABELS) for table in tables]
    assert value == pytest.approx(np.mean([own for own, _ in alone]), abs=1e-12)
    np.testing.assert_allclose(influence, np.mean([own for _, own in alone], axis=0), atol=1e-12)


@pytest.mark.whole
def test_a_bootstrap_of_the_patients_of_each_fold_has_the_same_spread():
    table, fold = in_folds(predictions(images=300, patients=120), folds=3)
    known = table["Mass"].notna().to_numpy()
    table, fold, rng = table[known].reset_index(drop=True), fold[known], default_rng(3)
    rows_of = [rows.to_numpy() for rows in table.groupby("group").groups.values()]
    of_fold = [[rows for rows in rows_of if fold[rows[0]] == k] for k in range(3)]
    values = []
    for _ in range(200):
        repeated = [own[i] for own in of_fold for i in rng.integers(0, len(own), len(own))]
        drawn = np.concatenate(repeated)
        values.append(within_folds(table.iloc[drawn].reset_index(), fold[drawn], "Mass"))
    influence = macro_auroc(table, ["Mass"], fold)[1]
    sd = math.sqrt(influence.var(ddof=1) / len(influence))
    assert sd == pytest.approx(np.std(values), rel=0.15)  # 3 standard errors of 5 %


def test_t_interval_is_that_of_scipy():
    values = [0.1, 0.25, 0.2, math.nan, 0.4]
    known = np.array(values)[[0, 1, 2, 4]]
    expected = stats.ttest_1samp(known, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((known.mean(), expected.low, expected.high))
    assert t_interval([0.5])[0] == 0.5
    assert math.isnan(t_interval([0.5])[1])


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


def test_the_interval_is_as_wide_as_delongs():
    table = binormal(2000, 1.0, seed=0)
    low, high = auroc_interval(table, ["0"])
    sd = delong_sd(table["0_probability"].to_numpy(), table["0"].to_numpy())
    assert (high - low) / (2 * NormalDist().inv_cdf(0.975) * sd) == pytest.approx(1, abs=0.01)
    value = roc_auc_score(table["0"], table["0_probability"])
    middle = (math.log(low / (1 - low)) + math.log(high / (1 - high))) / 2
    assert middle == pytest.approx(math.log(value / (1 - value)))  # symmetric on that scale


@pytest.mark.parametrize("patients", [20, 72])
def test_the_interval_covers_the_true_auroc_as_often_as_it_says(patients):
    """400 studies of films of the benchmark's kind: 95 %, three standard errors of 1.1 %."""
    rng, true = default_rng(0), placebo.true_auroc(placebo.STRENGTH, 0, 0)
    held = []
    for _ in range(400):
        seen = placebo.films(rng, patients)
        score = placebo.STRENGTH * seen.truth + seen.normal(rng)
        low, high = auroc_interval(table_of(score, seen.truth, seen.patient), ["0"])
        held.append(low <= true <= high or math.isnan(low))
    assert 0.917 < np.mean(held) < 0.983


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_a_perfect_order_has_an_exact_bound(level):
    """With an AUROC of the bound, k independent pairs are all right with probability `tail`."""
    low, high = logit_interval(1.0, np.zeros(30), fewest=9, level=level)
    assert (low**9, high) == (pytest.approx((1 - level) / 2), 1)
    assert logit_interval(0.0, np.zeros(30), fewest=9, level=level) == pytest.approx((0, 1 - low))


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
    """No other positive patient shows how much the score depends on this one."""
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
