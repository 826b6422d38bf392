"""Two models on the same images: better, worse, equivalent or undecided, paired by patient."""

import math

import numpy as np
import pytest

from fluoroscope.config.report import Rule
from fluoroscope.evaluation.paired import compare_models, paired_sentences
from tests.evaluation.test_subgroups import bootstrapped, by_ranks, drawn


def noisy(table, labels, rng, spread):
    """Another model: the same scores with noise on the logit."""
    logit = {n: np.log(table[n] / (1 - table[n])) for n in (f"{k}_probability" for k in labels)}
    return table.assign(
        **{n: 1 / (1 + np.exp(-x - spread * rng.normal(size=len(x)))) for n, x in logit.items()}
    )


def test_a_model_is_equivalent_to_itself():
    table = drawn(np.random.default_rng(0), patients=60)
    (pair,) = compare_models(table, table, ["Mass"], Rule())
    assert pair.difference == (0, 0, 0)
    assert pair.finding == "equivalent"
    assert paired_sentences([pair], "B")[0].startswith(
        "the model scores the same within the margin"
    )


def test_a_difference_has_the_interval_of_a_bootstrap_over_patients():
    rng = np.random.default_rng(1)
    one = drawn(rng, patients=150, images=2)
    other = noisy(one, ["Mass"], rng, 1.5)
    truth, scores = one["Mass"].to_numpy(), [t["Mass_probability"].to_numpy() for t in (one, other)]
    (pair,) = compare_models(one, other, ["Mass"], Rule())

    def difference(rows):
        first, second = (by_ranks(truth[rows], score[rows]) for score in scores)
        return first - second

    assert pair.difference.value == pytest.approx(difference(np.arange(len(one))))
    assert pair.difference.value == pytest.approx(pair.auroc.value - pair.other_auroc.value)
    expected = bootstrapped(one, difference, np.random.default_rng(2), 800)
    np.testing.assert_allclose(pair.difference[1:], expected, atol=0.015)


def test_the_order_of_the_models_turns_the_finding_around():
    rng = np.random.default_rng(3)
    one = drawn(rng, patients=500, labels=("A", "B"), skill=2)
    other = noisy(one, ["A", "B"], rng, 2.5)
    better, worse = (
        compare_models(*pair, ["A", "B"], Rule()) for pair in ((one, other), (other, one))
    )
    assert [pair.label for pair in better] == [None, "A", "B"]
    assert {pair.finding for pair in better} == {"better"}
    assert {pair.finding for pair in worse} == {"worse"}
    for first, second in zip(better, worse, strict=True):
        assert first.difference.low == pytest.approx(-second.difference.high)
    said = paired_sentences(worse, "B")
    assert said[0].startswith("the model scores worse than B: AUROC -0.")
    assert said[1] == "worse for A, B"


def test_few_patients_decide_nothing():
    rng = np.random.default_rng(4)
    one = drawn(rng, patients=60, images=3, labels=("A", "B"), skill=3)
    other = noisy(one, ["A", "B"], rng, 9)
    ill = one["group"][one["B"] == 1].unique()
    for table in (one, other):
        table.loc[table["group"].isin(ill[9:]), "B"] = np.nan
    mean, of_a, of_b = compare_models(one, other, ["A", "B"], Rule())
    assert mean.difference.value == of_a.difference.value  # B is not in the mean
    assert of_b.why_not == "only 9 positive patients; a finding needs 10 of each"
    assert math.isnan(of_b.difference.value)
    none = compare_models(one, other, ["B"], Rule())
    assert paired_sentences(none, "X") == [
        "no label has enough patients to compare the model with X"
    ]


def test_a_wider_margin_makes_models_equivalent():
    rng = np.random.default_rng(5)
    one = drawn(rng, patients=500)
    other = noisy(one, ["Mass"], rng, 0.3)
    findings = [compare_models(one, other, ["Mass"], Rule(m))[0].finding for m in (0.0, 0.2)]
    assert findings[0] != "equivalent"
    assert findings[1] == "equivalent"
