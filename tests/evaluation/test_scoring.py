"""Each score against scikit-learn, torchmetrics or arithmetic by hand; each interval against the
same library on every draw.
"""

import math
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional.classification import binary_calibration_error

from fluoroscope.evaluation.contents import Estimate, Point, estimates
from fluoroscope.evaluation.quality import BINS, quality
from fluoroscope.evaluation.ranking import auprc
from fluoroscope.evaluation.resampling import Patients
from fluoroscope.evaluation.scoring import CURVE, Settings, score_label, score_table
from fluoroscope.statistics import auroc_interval
from fluoroscope.trained.calibration import fit_calibration, logit, sigmoid
from tests.evaluation.cases import predictions, resampled

POINTS = ("youden", "sensitivity_90", "specificity_95")
DRAWS = 200


@pytest.fixture(scope="module")
def table():
    two = predictions(seed=1, share=0.15, label="Rod")
    table = predictions().assign(Rod=two["Rod"], Rod_probability=two["Rod_probability"])
    table.loc[::7, "Disc"] = math.nan  # unknown
    return table


@pytest.fixture(scope="module")
def calibration():
    val = predictions(seed=2).join(predictions(seed=3, label="Rod")[["Rod", "Rod_probability"]])
    return fit_calibration(val, ["Disc", "Rod"], "f", "s", POINTS).labels


@pytest.fixture(scope="module")
def scored(table, calibration):
    return score_table(table, ["Disc", "Rod"], calibration, Settings(POINTS, 0.05))


def known(table, calibration, label="Disc"):
    rows = table[table[label].isin([0, 1])]
    raw = rows[f"{label}_probability"].to_numpy()
    return rows[label].to_numpy(), raw, sigmoid(logit(raw) / calibration[label].temperature)


def ece(truth, probability):
    p, y = torch.tensor(probability), torch.tensor(truth).long()
    return float(binary_calibration_error(p, y, n_bins=15, norm="l1"))


def test_scores_are_those_of_the_libraries(table, calibration, scored):
    truth, raw, probability = known(table, calibration)
    own = scored[0]["Disc"]
    assert own.images == len(truth) < len(table)
    assert (own.positives, own.negatives) == ((truth == 1).sum(), (truth == 0).sum())
    assert own.prevalence.value == pytest.approx(truth.mean())
    assert own.auroc.value == pytest.approx(metrics.roc_auc_score(truth, raw))
    assert own.auroc[1:] == auroc_interval(table, ["Disc"])
    assert own.auprc.value == pytest.approx(metrics.average_precision_score(truth, raw))
    for quality_of, p in ((own.before, raw), (own.after, probability)):
        assert quality_of.brier.value == pytest.approx(metrics.brier_score_loss(truth, p))
        assert quality_of.log_loss.value == pytest.approx(metrics.log_loss(truth, p))
        assert quality_of.ece.value == pytest.approx(ece(truth, p), abs=1e-6)
    assert (own.brier, own.ece, own.log_loss) == (
        own.after.brier,
        own.after.ece,
        own.after.log_loss,
    )


@pytest.mark.parametrize("name", POINTS)
def test_points_are_those_of_the_confusion_matrix(table, calibration, scored, name):
    truth, raw, probability = known(table, calibration)
    point = scored[0]["Disc"].points[name]
    assert point.threshold == calibration["Disc"].points[name]
    called = probability >= point.threshold
    assert (called == (raw >= point.raw_threshold)).all()
    tn, fp, fn, tp = metrics.confusion_matrix(truth, called).ravel()
    assert [x.value for x in (point.tp, point.fp, point.fn, point.tn)] == [tp, fp, fn, tn]
    assert point.sensitivity.value == metrics.recall_score(truth, called)
    assert point.specificity.value == metrics.recall_score(1 - truth, 1 - called)
    assert point.ppv.value == metrics.precision_score(truth, called)
    assert point.npv.value == metrics.precision_score(1 - truth, 1 - called)
    assert point.f1.value == pytest.approx(metrics.f1_score(truth, called))
    ratios = metrics.class_likelihood_ratios(truth, called)
    assert (point.lr_positive.value, point.lr_negative.value) == pytest.approx(ratios)
    odds = point.threshold / (1 - point.threshold)
    assert point.net_benefit.value == pytest.approx((tp - odds * fp) / len(truth), rel=1e-5)
    hits, alarms = tp / (tp + fn), fp / (tn + fp)
    there = point.at_prevalence
    assert there.ppv.value == pytest.approx(0.05 * hits / (0.05 * hits + 0.95 * alarms))
    assert there.npv.value == pytest.approx(
        0.95 * (1 - alarms) / (0.95 * (1 - alarms) + 0.05 * (1 - hits))
    )
    assert there.net_benefit.value == pytest.approx(0.05 * hits - 0.95 * alarms * odds)


def test_the_draws_are_those_of_repeated_rows(table, calibration):
    patients = Patients(table["group"], draws=20)
    rows = table["Disc"].isin([0, 1]).to_numpy()
    truth, raw, _ = known(table, calibration)
    _, precision = auprc(raw, truth, patients.number[rows], patients)
    _, of_quality = quality(raw, truth, rows, patients)
    own = score_label(table, "Disc", calibration["Disc"], Settings(POINTS), patients)[1]
    cut = calibration["Disc"].points["youden"]
    for k, again in enumerate(resampled(table, patients)):
        y, p, after = known(again, calibration)
        assert precision[k] == pytest.approx(metrics.average_precision_score(y, p), rel=1e-5)
        assert of_quality.brier[k] == pytest.approx(metrics.brier_score_loss(y, p), rel=1e-5)
        assert of_quality.log_loss[k] == pytest.approx(metrics.log_loss(y, p), rel=1e-5)
        assert of_quality.ece[k, 0] == pytest.approx(ece(y, p), rel=1e-4)
        called = after >= cut
        assert own.points["youden"].f1[k] == pytest.approx(metrics.f1_score(y, called))
        assert own.points["youden"].ppv[k] == pytest.approx(metrics.precision_score(y, called))


def test_intervals_are_near_those_of_a_plain_bootstrap(table, calibration, scored):
    """For rates in the middle of their range, where percentiles are good."""
    point, values = scored[0]["Disc"].points["youden"], []
    for again in resampled(table, Patients(table["group"], draws=400, seed=5)):
        truth, _, p = known(again, calibration)
        tn, fp, fn, tp = metrics.confusion_matrix(truth, p >= point.threshold).ravel()
        rates = tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn)
        values.append([*rates, 2 * tp / (2 * tp + fp + fn), tp, tp * (tn + fp) / fp / (tp + fn)])
    bounds = np.quantile(values, [0.025, 0.975], axis=0).T
    names = ("sensitivity", "specificity", "ppv", "npv", "f1", "tp", "lr_positive")
    for name, (low, high) in zip(names, bounds, strict=True):
        own = getattr(point, name)
        assert own.high - own.low == pytest.approx(high - low, rel=0.25), name
        assert (own.low + own.high) / 2 == pytest.approx((low + high) / 2, abs=0.3 * (high - low))


def test_every_number_lies_within_its_interval(scored):
    found = list(estimates(scored[0])) + list(estimates(scored[1]))
    assert len(found) > 100
    for place, (value, low, high) in found:
        assert low <= value <= high, place


def test_the_bins_hold_all_images_before_and_after(table, calibration, scored):
    truth, raw, probability = known(table, calibration)
    for quality_of, p in ((scored[0]["Disc"].before, raw), (scored[0]["Disc"].after, probability)):
        bins = quality_of.reliability
        assert len(bins) == BINS
        assert [b.images for b in bins] == np.histogram(p, np.arange(16) / 15)[0].tolist()
        mean = sum(b.images * b.observed.value for b in bins if b.images) / len(truth)
        assert mean == pytest.approx(truth.mean())
        gaps = sum(b.images * abs(b.predicted - b.observed.value) for b in bins if b.images)
        assert gaps / len(truth) == pytest.approx(quality_of.ece.value)


def test_the_decision_curve_has_the_net_benefit_of_each_threshold(table, calibration):
    patients = Patients(table["group"], draws=DRAWS)
    own = score_label(table, "Disc", calibration["Disc"], Settings(POINTS), patients)[0]
    there = score_label(table, "Disc", calibration["Disc"], Settings(POINTS, 0.2), patients)[0]
    truth, _, p = known(table, calibration)
    assert [x.threshold for x in own.decision_curve] == list(CURVE)
    for here, moved in zip(own.decision_curve, there.decision_curve, strict=True):
        odds = here.threshold / (1 - here.threshold)
        called = p >= here.threshold
        gain = ((called & (truth == 1)).sum() - odds * (called & (truth == 0)).sum()) / len(truth)
        assert here.net_benefit.value == pytest.approx(gain, rel=1e-5, abs=1e-9)
        assert here.all == pytest.approx(truth.mean() - (1 - truth.mean()) * odds)
        rates = called[truth == 1].mean(), called[truth == 0].mean()
        assert moved.net_benefit.value == pytest.approx(0.2 * rates[0] - 0.8 * odds * rates[1])
        assert moved.all == pytest.approx(0.2 - 0.8 * odds)


def test_means_are_over_the_judged_labels(table, calibration, scored):
    rare = table.assign(Rare=0.0, Rare_probability=0.1)
    rare.loc[rare.index[:9], "Rare"] = 1.0
    labels, macro = score_table(rare, ["Disc", "Rod", "Rare"], calibration, Settings(POINTS, 0.05))
    assert macro == scored[1]
    assert macro.labels == 2
    for name in ("auroc", "auprc", "brier", "ece", "log_loss"):
        each = [getattr(scored[0][label], name).value for label in ("Disc", "Rod")]
        assert getattr(macro, name).value == pytest.approx(np.mean(each))
    assert not labels["Rare"].judged
    assert labels["Rare"].why_not.startswith("not judged: 9 positive images of ")
    assert math.isnan(labels["Rare"].auroc.value)
    assert macro.points["youden"].sensitivity.value == pytest.approx(
        np.mean([scored[0][label].points["youden"].sensitivity.value for label in ("Disc", "Rod")])
    )
    both = macro.auprc.high - macro.auprc.low
    assert both < max(x.auprc.high - x.auprc.low for x in scored[0].values())


@pytest.mark.parametrize(("positives", "people", "judged"), [(10, 10, True), (9, 9, False)])
def test_ten_of_each_class_are_judged(positives, people, judged):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"group": range(40), "Disc": [1.0] * positives + [0.0] * (40 - positives)})
    table["Disc_probability"] = rng.random(40)
    for own in (table, table.assign(Disc=1 - table["Disc"])):
        scores, macro = score_table(own, ["Disc"], {}, Settings(POINTS))
        assert scores["Disc"].judged is judged
        assert macro.labels == judged
        assert scores["Disc"].after is None
        assert scores["Disc"].points == {}
        assert bool(scores["Disc"].why_not) is not judged
        assert math.isnan(scores["Disc"].brier.value) is not judged


def test_ten_images_of_three_patients_are_not_judged():
    table = predictions(images=60, patients=30)
    table["Disc"] = np.where(table["group"].isin([0, 1, 2]), 1.0, 0.0)
    table = pd.concat([table, table[table["Disc"] == 1], table[table["Disc"] == 1]])
    own = score_table(table, ["Disc"], {}, Settings(POINTS))[0]["Disc"]
    assert own.positives >= 10
    assert "positive images of 3 patients" in own.why_not
    unknown = score_table(table, ["Disc"], {}, Settings(POINTS, None, "none"))[0]["Disc"]
    assert (unknown.patients, unknown.positive_patients) == (None, None)
    assert "of 3 patients" not in unknown.why_not


def test_a_perfect_model_has_no_interval_of_width_zero(calibration):
    table = pd.DataFrame({"group": range(60), "Disc": [1.0, 0.0] * 30})
    table["Disc_probability"] = np.where(table["Disc"] == 1, 0.999, 0.001)
    perfect = replace_thresholds(calibration["Disc"], 0.5)
    own = score_table(table, ["Disc"], {"Disc": perfect}, Settings(("youden",), 0.1))[0]["Disc"]
    point = own.points["youden"]
    for name in ("sensitivity", "specificity", "ppv", "npv", "f1"):
        value, low, high = getattr(point, name)
        assert value == high == 1
        bound = 0.025 ** (1 / 30)
        bound = 2 * bound / (1 + bound) if name == "f1" else bound  # a function of tp / (tp + ...)
        assert low == pytest.approx(bound), name
    assert own.auroc.low == own.auprc.low == pytest.approx(0.025 ** (1 / 30))
    assert point.lr_positive.value == math.inf
    assert point.lr_positive.low > 5
    assert point.lr_negative.high < 0.2
    assert point.at_prevalence.ppv.value == 1
    assert 0.4 < point.at_prevalence.ppv.low < 0.6
    assert point.at_prevalence.net_benefit.low < 0.1 == point.at_prevalence.net_benefit.value


def replace_thresholds(fitted, cut):
    return fitted._replace(points={"youden": cut}, raw_points={"youden": cut})


def test_nobody_called_positive_leaves_what_is_not_defined_unknown(table, calibration):
    never = {"Disc": replace_thresholds(calibration["Disc"], 1.0)}
    point = score_table(table, ["Disc"], never, Settings(("youden",), 0.1))[0]["Disc"].points[
        "youden"
    ]
    assert (point.sensitivity.value, point.specificity.value, point.f1.value) == (0, 1, 0)
    assert math.isnan(point.ppv.value)
    assert math.isnan(point.net_benefit.value)
    assert {field.name for field in fields(Point)} > {"ppv", "net_benefit"}


def test_a_threshold_that_validation_did_not_give_is_left_out(table, calibration):
    lacking = {"Disc": replace_thresholds(calibration["Disc"], math.nan)}
    own = score_table(table, ["Disc"], lacking, Settings(("youden",)))[0]["Disc"]
    assert own.points == {}
    assert isinstance(own.brier, Estimate)
    assert replace(own, points={}) == own
