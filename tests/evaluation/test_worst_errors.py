"""The worst errors are those that most images of the other class outrank."""

import numpy as np
import pandas as pd
import pytest

from fluoroscope.evaluation.worst_errors import worst_errors


def by_pairs(table, label):
    """By row, the share of the other class on the wrong side: every pair is looked at."""
    truth, score = table[label].to_numpy(), table[f"{label}_probability"].to_numpy()
    found = {}
    for row, own, value in zip(table["row"], truth, score, strict=True):
        gaps = (score[truth == 1 - own] - value) * (1 if own == 1 else -1)
        if len(gaps):
            found[row] = float((gaps > 0).mean() + (gaps == 0).mean() / 2)
    return found


def table_of(seed, labels=("A", "B", "C"), images=57):
    rng = np.random.default_rng(seed)
    columns = {"row": rng.permutation(1000)[:images]}
    for label in labels:
        columns[label] = rng.choice([0, 1, np.nan], images, p=(0.5, 0.3, 0.2))
        columns[f"{label}_probability"] = rng.integers(0, 12, images) / 12  # with ties
    return pd.DataFrame(columns)


def test_the_measure_is_the_share_of_wrongly_ordered_pairs():
    for seed in range(3):
        table = table_of(seed)
        shares: dict[bool, dict[int, float]] = {True: {}, False: {}}
        for label in ("A", "B", "C"):
            truth = table.set_index("row")[label]
            for row, share in by_pairs(table, label).items():
                kind = shares[bool(truth[row])]
                kind[row] = max(share, kind.get(row, 0))
        found = worst_errors(table, ["A", "B", "C"])
        assert [error.present for error in found] == [True] * 5 + [False] * 5
        for kind, own in ((True, found[:5]), (False, found[5:])):
            worst = sorted(shares[kind].values(), reverse=True)[:5]
            np.testing.assert_allclose([error.beaten_frac for error in own], worst)
            assert len({error.row for error in own}) == 5
        for error in found:
            share = by_pairs(table, error.label)[error.row]
            assert share == pytest.approx(error.beaten_frac)
            assert table["row"].iloc[error.place] == error.row
            assert error.present == (table[error.label].iloc[error.place] == 1)
            assert error.probability == table[f"{error.label}_probability"].iloc[error.place]


def test_both_kinds_of_error_are_listed_however_rare_the_finding():
    rng = np.random.default_rng(0)
    truth = np.repeat([1.0, 0.0], [12, 988])
    score = 1 / (1 + np.exp(4 - rng.normal(1.5 * truth, 1)))
    table = pd.DataFrame({"row": range(1000), "A": truth, "A_probability": score})
    assert sum(error.present for error in worst_errors(table, ["A"])) == 5


def test_no_error_without_a_wrong_pair():
    table = pd.DataFrame({"row": [4, 5, 6], "A": [0, 1, 1], "A_probability": [0.1, 0.2, 0.9]})
    assert worst_errors(table, ["A"]) == []
    assert worst_errors(table.assign(A=1.0), ["A"]) == []
    assert worst_errors(table.assign(A=np.nan), ["A"]) == []
    assert worst_errors(table, []) == []


def test_few_errors_are_all_listed_once():
    table = pd.DataFrame(
        {"row": [4, 5, 6, 7], "A": [0, 1, 1, 0], "A_probability": [0.5, 0.2, 1, 0]}
    )
    both = worst_errors(
        table.assign(B=table["A"], B_probability=table["A_probability"]), ["A", "B"]
    )
    assert [(e.row, e.label, e.beaten_frac) for e in both] == [(5, "A", 0.5), (4, "A", 0.5)]


def test_one_kind_fills_the_places_that_the_other_leaves():
    table = pd.DataFrame({"row": range(20), "A": [0] + [1] * 19})
    table["A_probability"] = [0.9] + [n / 20 for n in range(19)]
    found = worst_errors(table, ["A"])
    assert [error.row for error in found] == [*range(1, 10), 0]
