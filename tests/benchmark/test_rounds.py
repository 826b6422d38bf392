import numpy as np
import pytest

from fluoroscope.benchmark.rounds import alternate, at_least, at_most, ratio, shown, told
from fluoroscope.benchmark.timing import Spread

ARMS = ["off", "monitor", "watch_gradients", "watch_all", "extra_pass"]


def test_each_round_has_every_arm_in_an_order_of_its_own(capsys):
    order = []
    values = alternate(ARMS, 6, 1, lambda arm: order.append(arm) or len(order), "{:d} ms".format)
    rounds = [tuple(order[i : i + 5]) for i in range(0, 30, 5)]
    assert all(sorted(r) == sorted(ARMS) for r in rounds)
    assert len(set(rounds)) > 3
    assert {arm: len(found) for arm, found in values.items()} == dict.fromkeys(ARMS, 6)
    assert [order[place - 1] for found in values.values() for place in found] == [
        arm for arm in ARMS for _ in range(6)
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[3].startswith(f"round 4/6: off {values['off'][3]} ms  monitor ")


def test_a_ratio_is_taken_within_each_round():
    rng = np.random.default_rng(5)
    over, under = rng.uniform(1, 9, (2, 7))
    expected = np.quantile(over / under, [0.5, 0.25, 0.75])
    assert ratio(list(over), list(under)) == pytest.approx(expected, rel=1e-12)
    assert expected[0] != pytest.approx(np.median(over) / np.median(under), rel=1e-3)
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("value", "least", "most"), [(0.97, False, True), (0.98, True, True)])
def test_a_target_is_met_at_its_bound(value, least, most):
    assert at_least("speed", value, 0.98)["met"] is least
    assert at_most("time", value, 0.98)["met"] is most


def test_a_target_is_told_with_its_number():
    assert told(at_least("a / b", 0.9766, 0.98)) == "a / b: 0.9766, at least 0.98 wanted: missed"
    assert told(at_most("--help", 0.1, 0.5)) == "--help: 0.1, at most 0.5 wanted: met"


def test_a_spread_is_shown_alike_before_and_after_the_file():
    value = Spread(1.25, 1.0, 1.5)
    assert shown(value, ".2f") == shown(value._asdict(), ".2f") == "1.25 (1.00-1.50)"
