"""Intervals against closed forms of statsmodels and scipy, and by how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from fluoroscope.evaluation.contents import Estimate
from fluoroscope.evaluation.intervals import (
    by_distance,
    by_logit,
    by_percentiles,
    ratio,
    shares,
    transformed,
    weighted_difference,
)


def one_each(right, images):
    """A patient per image."""
    return (np.arange(images) < right).astype(float)[:, None], np.ones((images, 1))


@pytest.mark.parametrize(("right", "images"), [(0, 12), (12, 12), (7, 23), (1, 40), (37, 54)])
def test_one_image_per_patient_gives_nearly_the_exact_interval(right, images):
    found = shares(*one_each(right, images)).at(0)
    low, high = proportion_confint(right, images, method="beta")
    assert found.value == right / images
    # the spread of n images is worth n - 1 of them
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    assert found.low <= low + 1e-9 or right in (0, images)


def test_copies_of_an_image_within_a_patient_tell_nothing_new():
    part, whole = one_each(31, 60)
    once, thrice = shares(part, whole).at(0), shares(3 * part, 3 * whole).at(0)
    assert thrice.value == once.value
    assert thrice.high - thrice.low >= once.high - once.low
    assert thrice.low == pytest.approx(once.low, abs=0.01)
    assert shares(3 * whole, 3 * whole).at(0) == shares(whole, whole).at(0)


def test_patients_that_contradict_themselves_count_as_their_images():
    part, whole = np.ones((20, 1)), np.full((20, 1), 2.0)  # one of two is right in each
    low, high = proportion_confint(20, 40, method="beta")
    assert shares(part, whole).at(0) == pytest.approx((0.5, low, high))


def test_nobody_gives_no_share():
    assert all(math.isnan(x) for x in shares(np.zeros((9, 1)), np.zeros((9, 1))).at(0))


def test_percentiles_are_those_of_numpy_and_hold_the_value():
    draws = np.random.default_rng(0).normal(size=2000)
    found = by_percentiles(0.1, [*draws, math.nan])
    assert found[1:] == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert by_percentiles(9, draws).high == 9
    assert math.isnan(by_percentiles(math.nan, draws).low)


def test_a_distance_that_chance_explains_may_be_zero():
    draws = np.stack([np.linspace(0.2, 0.4, 2001), np.linspace(0.1, 0.2, 2001)], 1)
    assert by_distance(0.25, draws) == pytest.approx((0.25, 0.25 - 0.1975, 2 * 0.25 - 0.205))
    assert by_distance(0.15, draws)[1:] == (0, 0.15)


def test_a_score_is_symmetric_in_logits():
    draws = 0.8 + 0.03 * np.random.default_rng(0).normal(size=5000)
    value, low, high = by_logit(0.8, draws, fewest=12, patients=50)
    logits = stats.logistic.ppf([low, value, high])
    assert np.diff(logits)[0] == pytest.approx(np.diff(logits)[1])
    half = stats.t.isf(0.025, 49) * draws.std(ddof=1) / (0.8 * 0.2)
    assert np.diff(logits)[0] == pytest.approx(half)
    assert by_logit(1.0, np.ones(50), fewest=12, patients=50).low == 0.025 ** (1 / 12)


def test_a_ratio_of_large_samples_is_that_of_logarithms():
    """Simel, Samsa and Matchar (1991) for the likelihood ratio."""
    sensitivity, false_positive = 8000 / 10_000, 3000 / 20_000
    a, b = (shares(*one_each(k, n)).at(0) for k, n in ((8000, 10_000), (3000, 20_000)))
    found = ratio(a, b)
    sd = math.sqrt(0.2 / 8000 + 0.85 / 3000)
    assert found.value == sensitivity / false_positive
    assert found[1:] == pytest.approx(
        [found.value * math.exp(s * 1.96 * sd) for s in (-1, 1)], rel=3e-3
    )


def test_a_ratio_over_nothing_has_a_lower_bound_alone():
    a, b = Estimate(0.8, 0.6, 0.9), Estimate(0.0, 0.0, 0.1)
    found = ratio(a, b)
    assert (found.value, found.high) == (math.inf, math.inf)
    assert 6 < found.low < 8
    assert ratio(b, a).value == ratio(b, a).low == 0
    assert ratio(b, a).high == pytest.approx(1 / found.low)
    assert all(math.isnan(x) for x in ratio(b, b))


def test_a_difference_of_large_samples_is_the_normal_one():
    a, b = (shares(*one_each(k, n)).at(0) for k, n in ((8000, 10_000), (3000, 20_000)))
    value, low, high = weighted_difference(a, b, 0.3, 2.0)
    sd = math.hypot(0.3 * math.sqrt(0.16 / 10_000), 2 * math.sqrt(0.15 * 0.85 / 20_000))
    assert (value, low, high) == pytest.approx(
        (0.24 - 0.3, -0.06 - 1.96 * sd, -0.06 + 1.96 * sd), abs=3e-4
    )


def test_a_falling_function_swaps_the_ends():
    assert transformed(Estimate(0.5, 0.2, 0.6), lambda x: 1 - x) == (0.5, 0.4, 0.8)


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_nineteen_of_twenty_intervals_hold_the_truth(share):
    """40 patients with one to four images, which are alike within a patient."""
    rng = np.random.default_rng(0)
    whole = np.repeat(rng.integers(1, 5, (40, 1)).astype(float), 600, axis=1)
    alike = rng.beta(2 * share, 2 * (1 - share), whole.shape)  # correlation of 1/3
    found = shares(rng.binomial(whole.astype(int), alike).astype(float), whole)
    held = (found.low <= share) & (share <= found.high)
    assert held.mean() > 0.93
