import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from fluoroscope.errors import InputError
from fluoroscope.escaping import csv_table
from fluoroscope.model.scores import Predictions
from fluoroscope.run.run_folder import prediction_table
from fluoroscope.trained.calibration import (
    FILE,
    Calibration,
    LabelCalibration,
    calibrated,
    fit_calibration,
    logit,
    read_calibration,
    read_predictions,
    save_calibration,
    sigmoid,
)
from fluoroscope.trained.fitting import fit_logistic, fit_platt, fit_temperature
from fluoroscope.trained.loading import open_trained
from fluoroscope.trained.operating_points import POINTS
from fluoroscope.trained.stored_calibration import load_calibration

LABELS = ["Nodule", "Mass"]


def planted(slope, intercept=0.0, images=20_000, seed=0):
    """Logits whose true probability is sigmoid((logit - intercept) / slope)."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1.5, images)
    truth = (rng.random(images) < sigmoid(true)).astype(float)
    return slope * true + intercept, truth


@pytest.mark.parametrize("temperature", [0.2, 1.0, 2.5, 12.0])
def test_a_planted_temperature_is_recovered(temperature):
    found = fit_temperature(*planted(temperature))
    assert found == pytest.approx(temperature, rel=0.05)


def test_planted_slope_and_intercept_are_recovered():
    slope, intercept = fit_platt(*planted(2.0, 1.0))
    assert (slope, intercept) == pytest.approx((0.5, -0.5), abs=0.03)


def test_the_fit_has_the_smallest_log_loss():
    x, y = planted(2.0, 1.0, images=300)
    n1, n0 = (y == 1).sum(), (y == 0).sum()
    target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))

    def loss(parts):
        z = parts[0] * x + (parts[1] if len(parts) > 1 else 0)
        return np.mean(np.logaddexp(0, z) - target * z)

    assert fit_platt(x, y) == pytest.approx(minimize(loss, [1, 0], tol=1e-12).x, abs=1e-4)
    assert 1 / fit_temperature(x, y) == pytest.approx(minimize(loss, [1], tol=1e-12).x[0], abs=1e-4)


@pytest.mark.parametrize("truth", [[1, 1, 1], [0, 0, 0], [np.nan] * 3])
def test_one_class_leaves_the_logits_alone(truth):
    assert fit_temperature([-1, 0, 2], truth) == 1
    assert fit_platt([-1, 0, 2], truth) == (1, 0)


def test_scores_without_errors_have_a_finite_temperature():
    x, y = np.array([-3.0, -1, 1, 3]), np.array([0, 0, 1, 1])
    assert 0 < fit_temperature(x, y) < 100


def test_scores_that_are_all_wrong_keep_their_order():
    assert fit_temperature([-2, -1, 1, 2], [1, 1, 0, 0]) == 1


def clustered(seed, patients, images, temperature):
    """Images of a patient resemble each other, in logit and truth."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), images)
    true = rng.normal(0, 1.2, patients)[patient] + rng.normal(0, 0.9, len(patient))
    truth = (rng.random(patients)[patient] < sigmoid(true)).astype(float)
    return temperature * true, truth, patient


@pytest.mark.parametrize("intercept", [False, True])
def test_standard_errors_are_those_of_statsmodels(intercept):
    x, y, patient = clustered(0, 80, 3, 2.0)
    own = fit_logistic(np.append(x, 3), np.append(y, np.nan), intercept, np.append(patient, 999))
    n1, n0 = (y == 1).sum(), (y == 0).sum()
    target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    design = np.stack([x, np.ones_like(x)], 1)[:, : 1 + intercept]
    options = {"groups": patient, "use_correction": False}
    theirs = GLM(target, design, Binomial()).fit(cov_type="cluster", cov_kwds=options)
    expected = theirs.bse * np.sqrt(80 / 79)
    assert (own.slope, own.intercept)[: 1 + intercept] == pytest.approx(theirs.params, abs=1e-5)
    assert own.errors[: 1 + intercept] == pytest.approx(expected, rel=1e-4)
    assert own.freedom == 79


def test_the_interval_of_the_temperature_is_that_of_a_bootstrap_over_patients():
    x, y, patient = clustered(1, 200, 3, 2.0)
    rng, draws = np.random.default_rng(0), []
    for _ in range(400):
        weight = np.bincount(rng.integers(0, 200, 200), minlength=200)[patient]
        slope = 0.5
        for _ in range(8):  # Newton
            p = sigmoid(slope * x)
            slope += (weight * (y - p)) @ x / ((weight * p * (1 - p)) @ x**2)
        draws.append(1 / slope)
    found = fit_logistic(x, y, False, patient).temperature_bounds
    np.testing.assert_allclose(found, np.quantile(draws, [0.025, 0.975]), rtol=0.08)


def test_a_slope_that_may_be_zero_leaves_the_temperature_unbounded():
    x, y, patient = clustered(3, 40, 1, 2.0)
    mixed = np.where(patient % 2, x, -x) + 0.4 * x
    found = fit_logistic(mixed, y, False, patient)
    assert found.slope - 2.03 * found.errors[0] < 0 < found.slope
    low, high = found.temperature_bounds
    assert (low < found.temperature, high) == (True, math.inf)


def test_no_interval_where_nothing_limits_the_temperature():
    apart, truth = np.array([-3.0, -1, 1, 3]), [0, 0, 1, 1]
    for given in ((apart, truth), (-apart, truth), (apart, [1, 1, 1, 1])):
        assert np.isnan(fit_logistic(*given, False, range(4)).temperature_bounds).all()
    assert np.isnan(fit_logistic(apart, [0, 1, 0, 1], False, [1] * 4).temperature_bounds).all()


def table(images=200):
    rng = np.random.default_rng(1)
    columns = {"row": np.arange(images), "group": np.arange(images) // 2}
    for label in LABELS:
        truth = (rng.random(images) < 0.4).astype(float)
        columns |= {label: truth, f"{label}_probability": sigmoid(3 * rng.normal(truth, 1))}
    return pd.DataFrame(columns)


def test_thresholds_decide_alike_on_both_scales(tmp_path):
    fitted = fit_calibration(table(), LABELS, "f", "s")
    save_calibration(tmp_path, fitted)
    assert read_calibration(tmp_path / FILE) == fitted
    for own in fitted.labels.values():
        assert own.temperature_bounds[0] < own.temperature < own.temperature_bounds[1]
    raw = table()[[f"{label}_probability" for label in LABELS]].to_numpy()
    after = calibrated(fitted, logit(raw))
    for k, own in enumerate(fitted.labels.values()):
        for name, threshold in own.points.items():
            decided = after[:, k] >= threshold
            np.testing.assert_array_equal(decided, raw[:, k] >= own.raw_points[name])


def first(**own):
    """Change entries of the first label."""
    return lambda v: (
        v | {"labels": v["labels"] | {LABELS[0]: v["labels"][LABELS[0]] | own}}  # keeps the order
    )


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0, 20.0])
def test_stored_probabilities_give_what_the_logits_give(temperature):
    """Evaluations start from stored probabilities, predictions from logits; both mean the same."""
    logits = torch.cat([torch.linspace(-40, 40, 161), torch.tensor([16.7, 17.0, 17.4, -17.2])])
    columns = logits[:, None].expand(-1, len(LABELS))
    studies = pd.DataFrame({"patient": range(len(logits))} | dict.fromkeys(LABELS, math.nan))
    stored = prediction_table(
        studies, LABELS, Predictions(torch.arange(len(logits)), columns, columns * math.nan)
    )
    own = LabelCalibration(temperature, (1.0, 0.0), 50, 20, {}, {})
    predicted = calibrated(Calibration(dict.fromkeys(LABELS, own), "", "", {}), columns.numpy())
    found = sigmoid(logit(stored["Mass_probability"]) / temperature)
    np.testing.assert_allclose(found, predicted[:, 1], atol=1e-5)


def test_a_file_of_an_earlier_version_has_no_intervals(tmp_path):
    fitted = fit_calibration(table(), LABELS, "f", "s")
    save_calibration(tmp_path, fitted)
    values = json.loads((tmp_path / FILE).read_text())
    for own in values["labels"].values():
        del own["temperature_bounds"], own["platt_bounds"]
    (tmp_path / FILE).write_text(json.dumps(values))
    found = read_calibration(tmp_path / FILE).labels["Mass"]
    assert np.isnan([*found.temperature_bounds, *np.ravel(found.platt_bounds)]).all()
    assert found[:6] == fitted.labels["Mass"][:6]


DAMAGE = {
    "points of one label": first(points={"youden": 0.5}, raw_points={"youden": 0.5}),
    "points on one scale": first(raw_points={"youden": 0.5}),
    "threshold": first(points=dict.fromkeys(POINTS, 1.5), raw_points=dict.fromkeys(POINTS, 0.5)),
    "raw threshold": first(raw_points=dict.fromkeys(POINTS, -0.1)),
    "interval": first(temperature_bounds=[1.0]),
    "intervals": first(platt_bounds=[[0.5, 1.0]]),
    "no json": lambda v: None,
    "version": lambda v: v | {"version": 99},
    "labels": lambda v: v | {"labels": [1]},
    "temperature": lambda v: v | {"labels": {"Nodule": v["labels"]["Nodule"] | {"temperature": 0}}},
    "platt": lambda v: v | {"labels": {"Nodule": v["labels"]["Nodule"] | {"platt": [1]}}},
    "lacking": lambda v: {"version": 1},
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_sentence(kind, tmp_path):
    save_calibration(tmp_path, fit_calibration(table(), LABELS, "f", "s"))
    values = DAMAGE[kind](json.loads((tmp_path / FILE).read_text()))
    (tmp_path / FILE).write_text("{" if values is None else json.dumps(values))
    with pytest.raises(InputError, match=r"scripts/evaluate\.py again"):
        read_calibration(tmp_path / FILE)


def test_predictions_of_labels_like_formulas_are_read_as_they_are_written(tmp_path):
    labels = ["=SUM(A1)", "-5", "a,b", "@x"]
    columns = [name for label in labels for name in (label, f"{label}_probability")]
    written = pd.DataFrame(np.random.default_rng(0).random((4, 8)), columns=columns)
    csv_table(written).to_csv(tmp_path / "val.csv", index=False)
    assert "'=SUM" in (tmp_path / "val.csv").read_text()
    found = read_predictions(tmp_path / "val.csv", labels)
    assert found[columns].to_numpy() == pytest.approx(written.to_numpy())


@pytest.mark.parametrize("cell", ["", "nan", "inf", "1.5", "-0.1", "abc"])
def test_predictions_without_a_probability_are_damaged(tmp_path, cell):
    cells = table(5).astype(object)
    cells.loc[3, "Mass_probability"] = cell
    cells.to_csv(tmp_path / "val.csv", index=False)
    with pytest.raises(InputError, match=r"val\.csv holds a probability outside \[0, 1\]"):
        read_predictions(tmp_path / "val.csv", LABELS)


def test_a_run_without_the_file_is_fitted_on_its_validation(trained_run):
    trained = open_trained(trained_run)
    found = load_calibration(trained)
    predictions = pd.read_csv(trained_run / "predictions/val.csv")
    own = found.labels[trained.labels[0]]
    assert own.images == len(predictions)
    assert not (trained_run / FILE).exists()


def test_of_other_weights_is_refused(trained_run, tmp_path):
    trained = open_trained(trained_run)
    (tmp_path / "checkpoints").mkdir()
    moved = trained._replace(place=tmp_path / "checkpoints/best.ckpt", folder=None)
    assert load_calibration(moved) is None
    fitted = load_calibration(trained)
    save_calibration(moved.place.parent, fitted)
    assert load_calibration(moved) == fitted
    save_calibration(moved.place.parent, fitted._replace(fingerprint="0" * 16))
    with pytest.raises(InputError, match="other weights"):
        load_calibration(moved)
