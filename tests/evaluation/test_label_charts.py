"""The curves of a label show the numbers of scikit-learn and of the evaluation."""

import matplotlib as mpl
import numpy as np
import pytest
from sklearn import metrics

from fluoroscope.evaluation import label_charts
from fluoroscope.evaluation.forests import Row, differs, forest, group_forest, label_forest
from fluoroscope.reporting import theme
from tests.support.evaluations import POINTS, make_content, make_predictions

LABEL = "Pneumonia"


@pytest.fixture(autouse=True)
def _style():
    with mpl.rc_context(theme.RC):
        yield


@pytest.fixture(scope="module")
def predictions():
    return make_predictions([LABEL], 2000)


@pytest.fixture(scope="module")
def content(predictions):
    return make_content(predictions, [LABEL])


@pytest.fixture(scope="module")
def label(content):
    return content["labels"][LABEL]


@pytest.fixture
def arrays(predictions):
    return predictions[f"{LABEL}_probability"].to_numpy(), predictions[LABEL].to_numpy()


def curve(axes):
    return next(line for line in axes.lines if line.get_color() == theme.LIGHT["blue"])


def marks(axes):
    return [line for line in axes.lines if line.get_marker() in label_charts.MARKERS]


def test_the_thinned_roc_has_the_area_of_the_whole_one(arrays, label):
    score, truth = arrays
    axes = label_charts.roc(score, truth, label).figure.axes[0]
    x, y = curve(axes).get_data()
    assert len(x) <= label_charts.MOST + 2 < len(metrics.roc_curve(truth, score)[0])
    assert metrics.auc(x, y) == pytest.approx(metrics.roc_auc_score(truth, score), abs=0.002)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    vertices = set(zip(*metrics.roc_curve(truth, score)[:2], strict=True))
    assert set(zip(x, y, strict=True)) <= vertices


def test_operating_points_lie_on_the_roc(arrays, label):
    drawn = marks(label_charts.roc(*arrays, label).figure.axes[0])
    assert len(drawn) == len(POINTS)
    for line, point in zip(drawn, label["points"].values(), strict=True):
        place = 1 - point["specificity"]["value"], point["sensitivity"]["value"]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == pytest.approx(place)
        false, true, _ = metrics.roc_curve(arrays[1], arrays[0], drop_intermediate=False)
        assert min(np.hypot(false - place[0], true - place[1])) < 1e-9
    assert len({line.get_marker() for line in drawn}) == len(POINTS)


def test_precision_and_recall_enclose_the_average_precision(arrays, label):
    score, truth = arrays
    axes = label_charts.precision_recall(score, truth, label).figure.axes[0]
    recall, precision = curve(axes).get_data()
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(metrics.average_precision_score(truth, score), abs=0.01)
    assert axes.lines[0].get_ydata()[0] == pytest.approx(truth.mean())


def test_the_histogram_counts_each_class_for_itself(arrays, label):
    score, truth = arrays
    axes = label_charts.scores(score, truth, label).figure.axes[0]
    for patch, kind in zip(axes.patches, (0, 1), strict=True):
        expected = np.histogram(score[truth == kind], 20, (0, 1))[0] / (truth == kind).sum()
        heights = patch.get_xy()[:, 1]
        assert max(heights) == pytest.approx(expected.max())
        assert set(np.round(expected, 9)) <= set(np.round(heights, 9))
    cuts = [line.get_xdata()[0] for line in marks(axes)]
    assert cuts == [point["threshold"] for point in label["points"].values()]


def test_reliability_shows_the_bins_of_the_evaluation(label):
    axes, strip = label_charts.reliability(label).figure.axes
    after = next(line for line in axes.lines if line.get_marker() == "s")
    bins = [part for part in label["after"]["reliability"] if part["images"]]
    expected = [(part["predicted"], part["observed"]["value"]) for part in bins]
    drawn = np.array(after.get_xydata(), dtype=float)
    np.testing.assert_allclose(drawn, expected)
    counts = [part["images"] for part in label["after"]["reliability"]]
    assert [bar.get_height() for bar in strip.patches] == counts


def test_the_decision_curve_is_that_of_the_evaluation(label):
    chart = label_charts.decision_curve(label, None)
    axes = chart.figure.axes[0]
    x, y = curve(axes).get_data()
    parts = label["decision_curve"]
    np.testing.assert_allclose(x, [part["threshold"] for part in parts])
    np.testing.assert_allclose(y, [part["net_benefit"]["value"] for part in parts])
    assert "at the prevalence of the images" in chart.alt
    assert "prevalence of 0.05" in label_charts.decision_curve(label, 0.05).alt


def test_a_label_without_calibration_and_points_is_drawn_too(arrays, label):
    bare = {**label, "points": {}, "after": None, "decision_curve": []}
    assert label_charts.roc(*arrays, bare).figure.axes[0].get_legend() is None
    assert not marks(label_charts.scores(*arrays, bare).figure.axes[0])
    lines = label_charts.reliability(bare).figure.axes[0].lines
    assert not any(line.get_marker() == "s" for line in lines)


def group(attribute, name, value, gap=None):
    auroc = dict(zip(("value", "low", "high"), value, strict=True))
    gaps = {} if gap is None else {"auroc": dict(zip(("value", "low", "high"), gap, strict=True))}
    return {"attribute": attribute, "group": name, "auroc": auroc, "gaps": gaps}


GROUPS = [
    group("sex", "F", (0.8, 0.7, 0.9)),
    group("sex", "M", (0.7, 0.6, 0.8), (-0.1, -0.2, -0.01)),
    group("view", "AP", (0.81, 0.6, 0.95), (0.1, -0.02, 0.2)),
    group("view", "lateral", (None, None, None)),
]


def test_a_group_differs_if_its_simultaneous_interval_excludes_zero():
    assert [differs(one) for one in GROUPS] == [0, -1, 0, 0]
    assert differs(group("sex", "F", (0.8, 0.7, 0.9), (0.1, 0.01, 0.2))) == 1
    assert differs(group("sex", "F", (0.8, 0.7, 0.9), (0.1, None, None))) == 0


def test_the_forest_has_one_interval_per_judged_group():
    overall = {"value": 0.75, "low": 0.7, "high": 0.8}
    chart = group_forest(GROUPS, overall, LABEL)
    axes = chart.figure.axes[0]
    bars = [tuple(line.get_xdata()) for line in axes.lines if len(set(line.get_xdata())) == 2]
    assert bars == [(0.7, 0.8), (0.7, 0.9), (0.6, 0.8), (0.6, 0.95)]
    shown = [text.get_text() for text in chart.figure.texts]
    assert shown[::2] == ["all images", "sex:", "F", "M", "view:", "AP", "lateral"]
    assert shown[-1] == "too few"
    assert "M 0.700 (0.600 to 0.800), worse" in chart.alt
    low, high = axes.get_xlim()
    assert low < 0.6
    assert high > 0.95


def test_labels_that_are_not_judged_say_so():
    table = make_predictions(["A", "B"], 80, rare=("B",))
    chart = label_forest(make_content(table, ["A", "B"]))
    assert [text.get_text() for text in chart.figure.texts][::2] == ["mean", "A", "B"]
    assert chart.figure.texts[-1].get_text() == "not judged"
    assert "B not judged" in chart.alt


def test_a_forest_without_any_estimate_is_drawn():
    unknown = {"value": None, "low": None, "high": None}
    assert "A n/a" in forest([Row("A", unknown, "n/a")], np.nan, "What").alt
