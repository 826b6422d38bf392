"""Agreement of a map with a region, by hand and against chance."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from fluoroscope.explanation.pointing import (
    centre_map,
    chance,
    energy,
    mean_difference,
    mean_score,
    pointing,
    rank_correlation,
    usual_places,
)

S = 12
FILM = np.zeros((S, S), bool)
FILM[2:10] = True  # a film that is wider than high
REGION = np.zeros((S, S), bool)
REGION[4:6, 3:9] = True  # 12 of 96 places


def test_a_map_that_says_nothing_scores_chance():
    assert chance(REGION, FILM) == 12 / 96
    for constant in (0.0, 3.5):
        heat = np.full((S, S), constant, np.float32)
        assert pointing(heat, REGION, FILM) == 12 / 96
        assert energy(heat, REGION, FILM) == pytest.approx(12 / 96)


def test_a_map_of_the_region_scores_one_and_the_margin_does_not_count():
    heat = REGION.astype(np.float32)
    heat[0] = 99  # in the margin
    assert pointing(heat, REGION, FILM) == energy(heat, REGION, FILM) == 1
    assert pointing(FILM & ~REGION, REGION, FILM) == energy(FILM & ~REGION, REGION, FILM) == 0


def test_energy_is_the_share_of_the_sum():
    heat = np.zeros((S, S), np.float32)
    heat[4, 3], heat[7, 7] = 1, 3
    assert energy(heat, REGION, FILM) == 0.25
    assert pointing(heat, REGION, FILM) == 0


def test_random_places_hit_by_chance():
    rng = np.random.default_rng(0)
    hits = [pointing(rng.random((S, S)), REGION, FILM) for _ in range(4000)]
    assert np.mean(hits) == pytest.approx(12 / 96, abs=3 * 0.33 / math.sqrt(4000))


def test_the_centre_prior_lies_on_the_middle_of_the_film():
    film = np.zeros((40, 40), bool)
    film[4:24, 10:30] = True
    heat = centre_map(film)
    centre = np.array([13.5, 19.5])
    assert np.abs(np.argwhere(heat == heat.max()) - centre).max() <= 0.5
    # A quarter of the side away it is one standard deviation lower.
    assert heat[13, 15] / heat[13, 20] == pytest.approx(np.exp(-(4.5**2 - 0.5**2) / 50), rel=1e-5)


def test_the_usual_place_leaves_the_patient_out():
    rng = np.random.default_rng(5)
    regions, patients = [*(rng.random((7, 4, 4)) > 0.5)], [*"abacbad"]
    for found, patient in zip(usual_places(regions, patients), patients, strict=True):
        others = [r for r, of in zip(regions, patients, strict=True) if of != patient]
        np.testing.assert_array_equal(found, np.mean(others, axis=0))
    assert list(usual_places(regions[:2], ["a", "a"])) == [None, None]


def test_the_usual_place_of_thousands_of_films_takes_seconds():
    """Of n films it took n^2 additions."""
    regions = [np.zeros((64, 64), bool)] * 4000
    start = time.process_time()
    assert sum(1 for _ in usual_places(regions, list(map(str, range(4000))))) == 4000
    assert time.process_time() - start < 5


def test_the_interval_is_over_patients():
    """Ten copies of each film of a patient are no more evidence than one."""
    rng = np.random.default_rng(1)
    scores, patients = rng.random(20), [f"p{n}" for n in range(20)]
    once = mean_score(scores, patients)
    again = mean_score(np.repeat(scores, 10), np.repeat(patients, 10))
    assert again == pytest.approx(once)
    apart = mean_difference(scores, 0.5, patients)
    expected = stats.ttest_1samp(scores - 0.5, 0).confidence_interval()
    assert apart == pytest.approx((scores.mean() - 0.5, *expected))


def test_the_interval_covers_as_often_as_it_says():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(800):
        chances = rng.beta(3, 2, 31)  # a patient's own, with a mean of 0.6
        patients = np.repeat(np.arange(31), rng.integers(1, 4, 31)).astype(str)
        scores = rng.random(len(patients)) < chances[patients.astype(int)]
        _, low, high = mean_score(scores, patients)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 800 <= 0.98


@pytest.mark.parametrize(
    ("count", "one", "other"), [(8, 0.1, 0.1), (31, 0.6, 0.3), (31, 0.9, 0.95)]
)
def test_a_difference_of_hits_is_covered_by_its_interval(count, one, other):
    """Also if few patients agree by chance, where the spread of the differences is nothing."""
    rng, covered = np.random.default_rng(4), 0
    for _ in range(800):
        hits, others = rng.random((2, count)) < [[one], [other]]
        _, low, high = mean_difference(hits, others, [*map(str, range(count))], hits=True)
        covered += low <= one - other <= high
    assert covered / 800 >= 0.93
    none = mean_difference(np.zeros(9), np.full(9, 0.13), list("aaabbbccc"), hits=True)
    assert none.low < -0.13 < 0 < none.high


def test_bounds_of_all_hits_and_of_a_single_patient():
    value, low, high = mean_score([1, 1, 1, 1], list("abcd"))
    assert (value, high) == (1, 1)
    assert low == pytest.approx(stats.binomtest(4, 4).proportion_ci().low)
    assert all(map(math.isnan, mean_score([1, 0], ["a", "a"])[1:]))
    assert all(map(math.isnan, mean_difference([1, 0], 0, ["a", "a"])[1:]))


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 5, (2, S, S))
    expected = stats.spearmanr(one[FILM], other[FILM]).statistic
    assert rank_correlation(one, other, FILM) == pytest.approx(expected)
    assert math.isnan(rank_correlation(one, np.zeros((S, S)), FILM))
