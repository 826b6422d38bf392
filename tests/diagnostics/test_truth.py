import pytest

from tests.diagnostics.truth import CASES


@pytest.mark.parametrize("name", CASES)
def test_measured_is_what_mathematics_says(name):
    truth = CASES[name]()
    assert truth.holds, truth


def test_every_case_is_there():
    assert len(CASES) == 232
