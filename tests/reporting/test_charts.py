"""Figures: what is drawn is what was measured."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fluoroscope.reporting import charts, curves, drawings, theme
from fluoroscope.reporting.collect import Run

NAMES = ["relu", "gelu", "identity", "tanh"]
LOOKS = theme.styles(NAMES, "relu", ["gelu"])


@pytest.fixture(autouse=True)
def _drawn_as_reports_are():
    with matplotlib.rc_context(theme.RC):
        yield


def test_scatter_has_a_mark_a_run():
    by_run = pd.DataFrame(
        {
            "activation": ["relu", "relu", "gelu", "tanh", "identity"],
            "dead": [0.26, 0.31, 0.0, 0.0, np.nan],
            "auroc": [0.88, 0.87, 0.91, 0.90, 0.5],
        }
    )
    chart = charts.scatter(by_run, LOOKS)
    lines = {line.get_label(): line for line in chart.figure.axes[0].lines}
    assert list(lines["relu"].get_xdata()) == [0.26, 0.31]
    assert list(lines["relu"].get_ydata()) == [0.88, 0.87]
    assert "identity" not in chart.alt  # it was not measured
    assert "of 4 runs: relu dead 26.0%" in chart.alt
    assert "26.0% to 31.0%, AUROC 0.870 to 0.880; gelu dead 0.0% to 0.0%" in chart.alt


def test_gates_keep_the_share_of_dead_units():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.1, 1, (5, 900)).astype(np.float32)
    shares[1:, :270] = 0
    chart = charts.gates(shares, "relu", 3)
    image = chart.figure.axes[0].images[0].get_array()
    assert image.shape == (charts.UNITS_SHOWN, 5)
    assert np.ma.getmaskarray(image)[:, -1].mean() == pytest.approx(0.3, abs=0.005)
    assert np.ma.getmaskarray(image)[:, 0].sum() == 0
    assert "seed 3: 0 of 900 units closed on every image after epoch 1, 270 after" in chart.alt


def run(activation, seed, auroc, gradients):
    """A run that logged a score at the end of each epoch and two gradients within."""
    logged = []
    for epoch, value in enumerate(auroc):
        logged += [{"epoch": epoch, "grad/l2/head": g} for g in gradients]
        logged.append({"epoch": epoch, "val/auroc": value})
    metrics = pd.DataFrame(logged).assign(step=0)
    config = {"seed": seed, "head": {"activation": activation}}
    return Run(None, f"{activation}-s{seed}", config, {}, metrics, {}, activation)


def test_a_curve_is_the_mean_over_seeds_with_their_standard_deviation():
    runs = [
        run("relu", 1, [0.6, 0.7, 0.8], [1, 3]),
        run("relu", 2, [0.5, 0.65], [5, 7]),  # stopped early
        run("tanh", 1, [0.55, 0.6, 0.65], [2, 2]),
    ]
    history = curves.histories(runs)
    shown = {curve.key: curve for curve in curves.CURVES}
    chart = curves.draw_curve(history, shown["val/auroc"], LOOKS)
    drawn = {line.get_color(): line for line in chart.figure.axes[0].lines[:2]}
    relu, tanh = drawn[theme.LIGHT["ink"]], drawn[theme.LIGHT["rest"]]
    np.testing.assert_allclose(relu.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(relu.get_ydata(), [0.55, 0.675, 0.8])
    np.testing.assert_allclose(tanh.get_ydata(), [0.55, 0.6, 0.65])
    band = chart.figure.axes[0].collections[0].get_paths()[0].vertices
    first = band[band[:, 0] == 1, 1]
    spread = np.std([0.6, 0.5], ddof=1)
    np.testing.assert_allclose([first.min(), first.max()], [0.55 - spread, 0.55 + spread])
    assert "epochs 1 to 3, means over seeds at the end: relu 0.800, tanh 0.650" in chart.alt
    gradient = curves.draw_curve(history, shown["grad/l2/head"], LOOKS)
    assert "relu 2, tanh 2" in gradient.alt  # of the last epoch, which seed 2 did not reach
    assert curves.draw_curve(history, shown["grad/l2/backbone"], LOOKS) is None


def test_a_curve_leaves_out_what_its_scale_cannot_show():
    shown = {curve.key: curve for curve in curves.CURVES}
    runs = [run("relu", 1, [0.5, np.inf, 0.8], [0, 0]), run("tanh", 1, [0.6] * 3, [0, 4])]
    history = curves.histories(runs)
    chart = curves.draw_curve(history, shown["grad/l2/head"], LOOKS)
    assert chart.alt.endswith("at the end: tanh 2.")
    chart = curves.draw_curve(history, shown["val/auroc"], LOOKS)
    relu = next(line for line in chart.figure.axes[0].lines if line.get_linewidth() > 2)
    np.testing.assert_allclose(relu.get_ydata(), [0.5, np.nan, 0.8])


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_apart_in_order_and_near(seed):
    wanted = np.random.default_rng(seed).beta(0.3, 0.3, 12)
    places = curves.spread_out(wanted, 0.06)
    assert np.diff(np.sort(places)).min() >= 0.06 - 1e-9
    assert (np.argsort(places) == np.argsort(wanted)).all()
    assert places.min() >= 0
    assert places.max() <= 1 + 1e-9
    alone = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(curves.spread_out(alone, 0.06), alone)


def test_highlighted_are_told_apart_by_more_than_colour():
    names = ["relu", "identity", "a", "b", "c", "d"]
    looks = theme.styles(names, "relu", ["a", "b", "c", "d"])
    shown = [looks[name] for name in names[:5]]
    for attribute in ("color", "dash", "marker"):
        assert len({getattr(look, attribute) for look in shown}) == 5
    assert not looks["d"].highlighted
    assert theme.styles(["identity"], "identity", [])["identity"] == theme.REFERENCE


def test_a_drawing_for_the_page_keeps_to_its_own_names_and_colours():
    shown = {curve.key: curve for curve in curves.CURVES}["val/auroc"]
    history = curves.histories([run("relu", 1, [0.6, 0.7], []), run("gelu", 1, [0.5, 0.6], [])])
    one, again = (
        drawings.standalone_svg(curves.draw_curve(history, shown, LOOKS).figure) for _ in range(2)
    )
    assert one == again
    shown = drawings.inline_svg(one, "one", "A <title>", "says & means")
    assert not set(re.findall(r"#[0-9a-f]{6}\b", shown)) - {"#000000"}
    assert "var(--green)" in shown
    ids = re.findall(r' id="([^"]+)"', shown)
    assert ids
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", shown)) <= set(ids)
    assert "A &lt;title&gt;" in shown
    assert "says &amp; means" in shown
    assert "<style" not in shown  # its rules would hold for the whole page
    assert "font-family" not in shown
