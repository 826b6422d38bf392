import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from fluoroscope.errors import InputError
from fluoroscope.escaping import csv_table
from fluoroscope.trained.calibration import (
    FILE,
    calibrated,
    fit_calibration,
    fit_platt,
    fit_temperature,
    logit,
    read_calibration,
    read_predictions,
    save_calibration,
    sigmoid,
)
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


DAMAGE = {
    "points of one label": first(points={"youden": 0.5}, raw_points={"youden": 0.5}),
    "points on one scale": first(raw_points={"youden": 0.5}),
    "threshold": first(points=dict.fromkeys(POINTS, 1.5), raw_points=dict.fromkeys(POINTS, 0.5)),
    "raw threshold": first(raw_points=dict.fromkeys(POINTS, -0.1)),
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
