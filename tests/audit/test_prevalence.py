"""Counts, intervals and tests against other routes."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from scipy.stats.contingency import association
from statsmodels.stats.proportion import proportion_confint

from fluoroscope.audit.findings import Subject
from fluoroscope.audit.prevalence import (
    check_prevalence,
    check_rare,
    check_unknown,
    check_views,
    prevalence_table,
)
from fluoroscope.data.study_table import study_table

SIZES = {"train": 300, "val": 150, "test": 150}


def subject(labels, patients=None, splits=None, views=None):
    labels = pd.DataFrame(labels)
    table = study_table([f"/x/{n}" for n in range(len(labels))], labels, patients, splits, views)
    return Subject(table, list(labels.columns), pd.DataFrame())


def splits(sizes=SIZES):
    return np.repeat(list(sizes), list(sizes.values())).tolist()


def test_counts_and_intervals_of_single_images():
    values = [1.0] * 7 + [0.0] * 13 + [np.nan] * 3 + [0.7] * 2
    row = prevalence_table(subject({"A": values}, splits=["train"] * 25)).iloc[0]
    assert row[["label", "split", "present", "absent", "between", "unknown"]].tolist() == [
        *("A", "train"),
        *(7, 13, 2, 3),
    ]
    # one image a patient: nothing but G / (G - 1) separates it from Wilson's interval
    assert row["prevalence"] == 0.35
    worth = 20 * 19 / 20
    assert row[["low", "high"]].tolist() == pytest.approx(
        proportion_confint(0.35 * worth, worth, method="wilson")
    )


def test_intervals_are_as_wide_as_a_bootstrap_of_patients():
    rng = np.random.default_rng(5)
    sick = rng.random(150) < 0.3
    patients = np.repeat(np.arange(150), rng.integers(1, 9, 150))
    values = (rng.random(len(patients)) < np.where(sick, 0.9, 0.05)[patients]).astype(float)
    row = prevalence_table(subject({"A": values}, patients.astype(str).tolist())).iloc[0]

    positives = np.bincount(patients, values)
    images = np.bincount(patients)
    drawn = rng.integers(0, 150, (4000, 150))
    shares = positives[drawn].sum(1) / images[drawn].sum(1)
    low, high = np.quantile(shares, [0.025, 0.975])
    assert row["prevalence"] == values.mean()
    assert row["high"] - row["low"] == pytest.approx(high - low, rel=0.1)
    naive = proportion_confint(values.sum(), len(values), method="wilson")
    assert row["high"] - row["low"] > 1.4 * (naive[1] - naive[0])


def test_intervals_of_a_label_that_is_never_there_or_never_known():
    table = prevalence_table(subject({"A": [0.0] * 30, "B": [np.nan] * 30}))
    assert table.loc[0, "low"] == table.loc[0, "prevalence"] == 0
    assert 0.05 < table.loc[0, "high"] < 0.15
    assert table.loc[1, ["prevalence", "low", "high"]].isna().all()
    assert table.loc[1, "unknown"] == 30


def test_a_label_more_frequent_in_one_split():
    rng = np.random.default_rng(0)
    same = (rng.random(600) < 0.3).astype(float)
    differs = (rng.random(600) < np.repeat([0.1, 0.1, 0.35], list(SIZES.values()))).astype(float)
    (finding,) = check_prevalence(subject({"Same": same, "Differs": differs}, splits=splits()))
    shares = [differs[:300].mean(), differs[300:450].mean(), differs[450:].mean()]
    assert finding.sentence.startswith(
        f"'Differs' is present on {shares[0]:.1%} of train, {shares[1]:.1%} of val, "
        f"{shares[2]:.1%} of test (p < 0.001)"
    )


def test_images_of_one_patient_are_no_evidence():
    """By images the splits differ beyond any doubt; by patients they are two against one."""
    values = [1.0] * 100 + [0.0] * 50 + [0.0] * 150
    patients = ["a"] * 100 + ["b"] * 50 + [f"c{n // 10}" for n in range(150)]
    where = ["train"] * 150 + ["test"] * 150
    assert fisher_exact([[100, 50], [0, 150]]).pvalue < 1e-9
    assert not list(check_prevalence(subject({"A": values}, patients, where)))


def test_chance_alone_is_not_reported():
    """Three alike images of each patient would make chance look like more."""
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(200), 3).astype(str).tolist()
    sick = np.repeat(rng.random((200, 150)) < 0.2, 3, axis=0).astype(float)
    labels = {f"L{n}": values for n, values in enumerate(sick.T)}
    assert not list(check_prevalence(subject(labels, patients, splits())))


def test_a_view_that_goes_with_a_label():
    rng = np.random.default_rng(2)
    views = np.where(rng.random(400) < 0.5, "AP", "PA")
    values = (rng.random(400) < np.where(views == "AP", 0.6, 0.2)).astype(float)
    other = (rng.random(400) < 0.4).astype(float)
    (finding,) = check_views(subject({"A": values, "B": other}, views=views.tolist()))
    strength = association(pd.crosstab(views, values), method="cramer", correction=True)
    assert finding.name == "view-goes-with-label"
    assert f"Cramér's V {strength:.2f}" in finding.sentence
    assert f"{values[views == 'AP'].mean():.1%} of AP" in finding.sentence


def test_missing_views():
    views = ["PA"] * 5 + [None] * 3
    (finding,) = check_views(subject({"A": [0.0, 1.0] * 4}, views=views))
    assert (finding.name, finding.count, finding.examples) == (
        "views-missing",
        3,
        ((5,), (6,), (7,)),
    )
    assert not list(check_views(subject({"A": [0.0, 1.0]}, views=[None, None])))


def test_rare_and_unknown_labels():
    sizes = {"train": 40, "test": 40}
    a = [1.0] * 12 + [0.0] * 28 + [1.0] * 9 + [0.0] * 31
    b = [1.0] * 10 + [0.0] * 30 + [np.nan] * 21 + [1.0] * 10 + [0.0] * 9
    c = [1.0] * 20 + [0.0] * 60
    found = subject({"A": a, "B": b, "C": c}, splits=splits(sizes))
    (rare,) = check_rare(found)
    assert rare.sentence == "the test split has fewer than 10 images with 1 label: A 9"
    (unknown,) = check_unknown(found)
    assert "the test split has 1 label unknown" in unknown.sentence
    assert unknown.sentence.endswith("B 52%")
