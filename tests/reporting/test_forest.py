"""The figure of the verdict: every row with its interval, its finding and its units."""

import math
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from fluoroscope.config.report import Rule
from fluoroscope.reporting import figures, forest, theme
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from tests.support.studies import write_study

NAMES = ("relu", "gelu", "identity", "tanh", "elu")
ORDERS = ({"head.order": "activation-norm"}, {"head.order": "norm-activation"})
FINDINGS = ("reference", "better", "worse", "equivalent", "undecided")
SHAPES = {"better": "^", "worse": "v", "equivalent": "s", "undecided": "o"}


@pytest.fixture(autouse=True)
def _drawn_as_reports_are():
    with matplotlib.rc_context(theme.RC):
        yield


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Two settings; the first has one finding of each kind, whatever the runs say."""
    found = compare(collect([write_study(tmp_path_factory.mktemp("s"), NAMES, 2, ORDERS)]))
    rows = found.settings[0].rows.assign(finding=FINDINGS)
    bounds = {"difference": [np.nan, 0.05, -0.06, 0.003, 0.01]}
    bounds["difference_low"] = [np.nan, 0.02, -0.09, -0.01, -0.03]
    bounds["difference_high"] = [np.nan, 0.08, -0.03, 0.016, 0.05]
    changed = replace(found.settings[0], rows=rows.assign(**bounds))
    return replace(found, settings=[changed, found.settings[1]])


def parts(comparison, number=0):
    """The figure's axes of differences and its canvas."""
    chart = forest.draw(comparison, comparison.settings[number])
    canvas, axes = chart.figure.axes
    return axes, canvas, chart.alt


def texts(canvas):
    return {text.get_text(): text.get_position() for text in canvas.texts}


def test_every_row_has_its_interval_and_the_mark_of_its_finding(comparison):
    axes, _, _ = parts(comparison)
    rows = comparison.settings[0].rows.set_index("activation")
    drawn = axes.lines[1:]  # the first one is zero
    for name, interval, mark in zip(
        forest.order(comparison)[1:], drawn[::2], drawn[1::2], strict=True
    ):
        row = rows.loc[name]
        low_high = [row["difference_low"], row["difference_high"]]
        assert list(interval.get_xdata()) == low_high
        assert list(mark.get_xdata()) == [row["difference"]]
        assert mark.get_marker() == SHAPES[row["finding"]]
        filled = to_hex(mark.get_markerfacecolor()) != theme.LIGHT["ground"]
        assert filled == (row["finding"] != "undecided")


def test_findings_differ_without_colour_and_so_do_units():
    assert len({(mark.shape, mark.filled) for mark in forest.MARKS.values()}) == 4
    grey = [(s["fc"] == theme.LIGHT["ground"], s.get("hatch")) for s in forest.CENSUS.values()]
    assert len(set(grey)) == 3


def test_bars_are_the_census_from_the_left(comparison):
    _, canvas, _ = parts(comparison)
    rows = comparison.settings[0].rows.set_index("activation")
    bars = [
        box for box in canvas.patches if box.get_x() >= forest.BAR_AT - 1e-9 and box.get_y() < 1.3
    ]
    at = 0
    for name in forest.order(comparison):
        shares = [rows.loc[name, kind] for kind in ("dead", "linear", "nonlinear")]
        left = forest.BAR_AT
        for share in (s for s in shares if s > 0):
            assert bars[at].get_x() == pytest.approx(left)
            assert bars[at].get_width() == pytest.approx(share * forest.BAR_IN)
            left, at = left + share * forest.BAR_IN, at + 1
        assert left == pytest.approx(forest.BAR_AT + forest.BAR_IN)
    assert at == len(bars)


def test_the_margin_is_a_band_and_all_settings_share_the_scale(comparison):
    for number in (0, 1):
        axes, _, _ = parts(comparison, number)
        assert axes.get_xlim() == forest.limits(comparison)
        low, high = forest.limits(comparison)
        assert low < -0.09
        assert high > 0.08
        band = axes.patches[0]
        assert (band.get_x(), band.get_width()) == pytest.approx((-0.02, 0.04))
    wide = replace(comparison, rule=Rule(margin=0.4))
    assert forest.limits(wide)[0] < -0.4
    assert forest.limits(wide)[1] > 0.4


def test_rows_are_in_one_order_in_all_settings(comparison):
    order = forest.order(comparison)
    assert order[0] == "relu"
    assert set(order) == set(NAMES)
    for number in (0, 1):
        _, canvas, _ = parts(comparison, number)
        heights = [texts(canvas)[name][1] for name in order]
        assert heights == sorted(heights, reverse=True)


def test_the_alternative_text_lists_the_rows(comparison):
    _, _, alt = parts(comparison)
    rows = comparison.settings[0].rows
    for name in NAMES:
        assert f"{name} " in alt
    worse = rows[rows["finding"] == "worse"].iloc[0]
    dead, linear, rest = (f"{worse[kind]:.1%}" for kind in ("dead", "linear", "nonlinear"))
    assert (
        f"{worse['activation']} −0.060 (−0.090 to −0.030), worse, dead {dead}, linear {linear}, "
        f"nonlinear {rest}" in alt
    )
    assert f"relu reference, AUROC {rows['auroc'][0]:.3f}" in alt


def test_what_was_not_measured_is_said(comparison):
    setting = comparison.settings[1]
    blank = dict.fromkeys(("dead", "linear", "nonlinear", "difference_low"), np.nan)
    blank |= {"difference": np.nan, "difference_high": np.nan, "finding": "undecided"}
    bare = replace(setting, rows=setting.rows.assign(**blank).astype({"finding": str}))
    only = replace(comparison, settings=[bare])
    assert forest.limits(only) == pytest.approx((-0.027, 0.027))
    _, canvas, alt = parts(only)
    assert [text.get_text() for text in canvas.texts].count("n/a") == len(NAMES)
    assert alt.count("units not measured") == len(NAMES)


@pytest.mark.parametrize("names", [("relu",), NAMES])
def test_any_number_of_rows_fits(tmp_path, names):
    only = compare(collect([write_study(tmp_path, names, 1)]))
    _, canvas, _ = parts(only)
    assert {"relu", "better", "worse", "equivalent", "not decided"} <= set(texts(canvas))
    ((title, file),) = figures.verdict_pngs(only)
    assert file[:4] == b"\x89PNG"
    assert title == "Difference to relu in test AUROC, and the units"
    assert not math.isnan(forest.limits(only)[0])
