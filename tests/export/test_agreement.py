import numpy as np
import pytest

from fluoroscope.export.agreement import compare


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ([[0.5, 0.25]], True),
        ([[0.50009, 0.25]], True),
        ([[0.50011, 0.25]], False),
        ([[0.5, 0.24989]], False),
        ([[np.nan, 0.25]], False),
    ],
)
def test_probabilities_agree_to_a_ten_thousandth(found, holds):
    assert compare([[0.5, 0.25]], found).holds is holds


@pytest.mark.parametrize("lost", [0.0, 0.0002, 0.00036])
def test_a_rare_finding_must_agree_in_its_log_odds_too(lost):
    """0.00034 was a threshold; a file that gives nearly nothing there would pass by 1e-4 alone."""
    assert not compare([[0.00034], [0.00009]], [[lost], [0.00009]]).holds
    assert not compare([[0.00009]], [[lost]]).holds
    assert compare([[0.00034]], [[0.000341]]).holds


def test_the_resolution_near_0_and_1_is_not_asked_for():
    expected = np.array([[1e-9], [1 - 1e-9]])
    assert compare(expected, expected.astype(np.float32)).holds


def test_the_differences_are_those_of_the_log_odds():
    expected, found = np.array([[0.2, 0.5], [0.9, 0.001]]), np.array([[0.21, 0.5], [0.9, 0.002]])
    agreement = compare(expected, found)
    odds = np.log(found / (1 - found)) - np.log(expected / (1 - expected))
    assert agreement.images == 2
    assert agreement.probability == pytest.approx(0.01)
    assert agreement.log_odds == pytest.approx(np.abs(odds).max())
