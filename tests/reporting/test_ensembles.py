"""The seeds of an activation as one model."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.statistics import auroc_interval, macro_auroc
from tests.reporting.folders import LABELS, predictions, write_cross_validation, write_grid

SEEDS = (1, 2, 3, 4)
COLUMNS = ["ensemble", "ensemble_low", "ensemble_high"]
PAIRED = ["ensemble_difference", "ensemble_difference_low", "ensemble_difference_high"]


def noisy(seed):
    """Seeds that disagree much, so that their mean is better than each."""
    return predictions(seed, images=180, patients=61, separation=1.5, noise=1, spread=2.0)


def relu(seed):
    return predictions(seed, images=180, patients=61)


def mean(make):
    tables = [make(seed) for seed in SEEDS]
    probabilities = [f"{label}_probability" for label in LABELS]
    return tables[0].assign(
        **{name: np.mean([t[name] for t in tables], 0) for name in probabilities}
    )


def rows_of(root, **keys):
    return compare(collect([root]), **keys).settings[0].rows.set_index("activation")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp("ensembles")
    activations = {"relu": {"table": relu}, "noisy": {"table": noisy}}
    return rows_of(write_grid(root, activations, SEEDS))


def test_an_ensemble_is_scored_as_one_model(rows):
    for name, make in {"relu": relu, "noisy": noisy}.items():
        table = mean(make)
        known = [table.dropna(subset=label) for label in LABELS]
        scores = [
            roc_auc_score(t[label], t[f"{label}_probability"])
            for t, label in zip(known, LABELS, strict=True)
        ]
        expected = [np.mean(scores), *auroc_interval(table, LABELS)]
        np.testing.assert_allclose(rows.loc[name, COLUMNS].astype(float), expected, atol=1e-6)
    assert rows.loc["noisy", "ensemble"] > rows.loc["noisy", "auroc"] + 0.05


def test_one_difference_has_the_t_interval_over_patients(rows):
    (own, moved), (other, moves) = (macro_auroc(mean(make), LABELS) for make in (noisy, relu))
    test = stats.ttest_1samp(own - other + moved - moves, 0).confidence_interval(0.95)
    expected = [own - other, test.low, test.high]
    np.testing.assert_allclose(rows.loc["noisy", PAIRED].astype(float), expected, atol=0.003)
    assert rows.loc["relu", PAIRED].isna().all()


def test_of_one_seed_there_is_none(tmp_path):
    activations = {"relu": {"table": relu}, "noisy": {"table": noisy}}
    rows = rows_of(write_grid(tmp_path, activations, SEEDS[:1]))
    assert rows[COLUMNS + PAIRED].isna().all(axis=None)


def test_ensembles_of_other_seeds_are_not_compared(tmp_path):
    folder = write_grid(tmp_path, {"relu": {"table": relu}, "noisy": {"table": noisy}}, SEEDS)
    runs = [
        r
        for r in collect([folder]).runs
        if (r.config["head"]["activation"], r.seed) != ("noisy", SEEDS[-1])
    ]
    found = collect([folder])
    rows = compare(type(found)(runs, []), incomplete=True).settings[0].rows.set_index("activation")
    assert rows[COLUMNS].notna().all(axis=None)
    assert rows[PAIRED].isna().all(axis=None)


def test_the_models_of_a_fold_are_averaged_within_it(tmp_path):
    folder = write_cross_validation(tmp_path, {"relu": relu, "noisy": noisy}, SEEDS, 3)
    table = mean(noisy)
    expected, _ = macro_auroc(table, LABELS, table["group"].to_numpy() % 3)
    assert rows_of(folder).loc["noisy", "ensemble"] == pytest.approx(expected, abs=1e-6)
