import math

import numpy as np
import pytest
from numpy.random import default_rng
from scipy import stats

from benchmarks import placebo
from fluoroscope.reporting.inference import Difference, Parts, simultaneous


def drawn(rng, parts, patients, seeds, effect=0.0):
    """A difference whose variance parts are known; all of it is normal."""
    of_patients = math.sqrt(parts.patient) * rng.normal(size=patients)
    of_seeds = math.sqrt(parts.seed) * rng.normal(size=(seeds, 1))
    cells = of_patients + of_seeds + math.sqrt(parts.crossing) * rng.normal(size=(seeds, patients))
    values = effect + cells.mean(1)
    return Difference(range(seeds), values, cells - cells.mean(1, keepdims=True))


def test_one_difference_that_varies_with_patients_alone_is_a_t_test():
    rng = default_rng(0)
    moved = 0.02 + 0.1 * rng.normal(size=40)
    one = Difference([1, 2, 3], np.full(3, moved.mean()), np.tile(moved - moved.mean(), (3, 1)))
    family = simultaneous([one])
    test = stats.ttest_1samp(moved, 0)
    low, high, p = family.intervals[0]
    assert family.critical == pytest.approx(1.96, abs=0.04)
    bounds = test.confidence_interval(0.95)
    np.testing.assert_allclose([low, high], [bounds.low, bounds.high], atol=0.001)
    assert p == pytest.approx(test.pvalue, abs=0.02)


def test_one_difference_that_varies_with_seeds_alone_is_a_paired_t_test():
    values = np.array([0.01, 0.03, -0.01, 0.02, 0.015])
    one = Difference(range(5), values, np.zeros((5, 30)))
    low, high, p = simultaneous([one]).intervals[0]
    test = stats.ttest_1samp(values, 0)
    bounds = test.confidence_interval(0.95)
    np.testing.assert_allclose([low, high], [bounds.low, bounds.high], rtol=0.03)
    assert p == pytest.approx(test.pvalue, abs=0.02)


def test_parts_are_those_that_were_planted():
    parts, rng = Parts(0.02, 0.004, 0.05), default_rng(1)
    found = [drawn(rng, parts, 60, 8).parts for _ in range(300)]
    for name in vars(parts):
        ours = np.mean([getattr(each, name) for each in found])
        assert ours == pytest.approx(getattr(parts, name), rel=0.1, abs=0.02 * (name == "skewness"))


def test_seeds_that_hide_the_spread_over_patients_show_no_smallest_difference():
    assert math.isnan(Parts(0.0, 0.001, 0.05).smallest(72, 2.5))
    assert Parts(0.0, 0.0, 0.0).smallest(72, 2.5) == 0


def test_more_differences_make_wider_intervals_unless_they_go_together():
    rng, parts = default_rng(2), Parts(0.02, 0.0001, 0.01)
    several = [drawn(rng, parts, 50, 5) for _ in range(8)]
    alone = simultaneous(several[:1]).critical
    # Eight independent ones: Sidak's bound. Eight times the same one: as if it were alone.
    sidak = stats.norm.isf((1 - 0.95 ** (1 / 8)) / 2)
    assert simultaneous(several).critical == pytest.approx(sidak, abs=0.05)
    assert simultaneous(several[:1] * 8).critical == pytest.approx(alone, abs=0.01)


def test_no_difference_at_all_and_no_spread_at_all():
    same = Difference(range(3), np.zeros(3), np.zeros((3, 20)))
    sure = Difference(range(3), np.full(3, 0.1), np.zeros((3, 20)))
    (low, high, p), (_, _, sure_p) = simultaneous([same, sure]).intervals
    assert (low, high, p) == (0, 0, 1)
    assert sure_p < 0.001
    assert same.parts.seeds_needed(0.01, 20, 2.0) == 2


@pytest.mark.parametrize("seeds", [0, 1])
def test_without_several_seeds_nothing_is_decidable(seeds):
    one = Difference(range(seeds), np.zeros(seeds), np.zeros((seeds, 20)))
    assert all(map(math.isnan, simultaneous([one]).intervals[0]))
    assert math.isnan(simultaneous([one]).critical)


def test_a_difference_that_is_not_defined_leaves_the_others_alone():
    rng, parts = default_rng(3), Parts(0.02, 0.0001, 0.01)
    one = drawn(rng, parts, 50, 5)
    unknown = Difference(range(5), np.full(5, math.nan), np.full((5, 50), math.nan))
    both = simultaneous([unknown, one])
    assert both.intervals[1] == simultaneous([one]).intervals[0]
    assert math.isnan(both.intervals[0][0])


@pytest.mark.parametrize(
    ("parts", "seeds"),
    [(Parts(0.02, 0.00005, 0.01), 10), (Parts(0.003, 0.0004, 0.02), 12), (Parts(0.03, 0, 0), 3)],
)
def test_forecasts_hold_in_simulation(parts, seeds):
    """Four of five studies of the forecast size find the difference: within five points."""
    rng, effect = default_rng(4), 0.02
    patients = int(parts.patients_needed(effect, seeds, 1.96))
    assert parts.power(effect, patients - 1, seeds, 1.96) < 0.8
    found = [
        simultaneous([drawn(rng, parts, patients, seeds, effect)]).intervals[0][0] > 0
        for _ in range(800)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_no_number_of_seeds_replaces_patients():
    parts = Parts(0.02, 0.0004, 0.01)
    smallest = parts.smallest(72, 2.5)
    assert parts.power(smallest, 72, math.inf, 2.5) == pytest.approx(0.8)
    assert parts.seeds_needed(0.9 * smallest, 72, 2.5) == math.inf
    enough = parts.seeds_needed(1.2 * smallest, 72, 2.5)
    assert parts.power(1.2 * smallest, 72, enough, 2.5) >= 0.8
    assert parts.power(1.2 * smallest, 72, enough - 1, 2.5) < 0.8


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(placebo.Kind(72, 10, 11, 1, 0.25), marks=pytest.mark.whole),
        pytest.param(placebo.Kind(72, 10, 11, 2, 0.25), marks=pytest.mark.whole),
        placebo.Kind(20, 5, 5, 1, 0.25),
        placebo.Kind(40, 3, 5, 1, 0.0, (0.5, 1.0)),
        placebo.Kind(40, 4, 2, 1, 0.15, folds=4),
        pytest.param(placebo.Kind(72, 10, 3, 1, 0.25, folds=5), marks=pytest.mark.whole),
    ],
)
def test_equal_activations_are_seldom_better_or_worse(kind):
    """At most 5 % of 150 studies, give or take three standard errors of 1.8 %."""
    found, held = zip(*placebo.findings(kind, 150), strict=True)
    assert np.mean([bool({"better", "worse"} & set(names)) for names in found]) < 0.1
    assert np.mean(held) > 0.9


def test_a_true_gain_is_found_and_a_gain_of_the_margin_is_seldom_equivalent():
    gain, margin = placebo.POWER[1], placebo.MARGIN[0]
    better = [names[0] == "better" for names, _ in placebo.findings(gain, 60)]
    same = [names[0] == "equivalent" for names, _ in placebo.findings(margin, 60)]
    assert np.mean(better) > 0.73
    assert np.mean(same) < 0.12  # 5 % and two and a half standard errors
