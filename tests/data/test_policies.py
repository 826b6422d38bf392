from collections import Counter

import numpy as np
import pandas as pd
import pytest

from fluoroscope.data.policies import add_up, apply_policies
from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError
from tests.support.real_rows import real_rows

NAN = float("nan")


def table():
    return pd.DataFrame({"Edema": [1, 0, -1, NAN], "Fracture": [-1, -1, NAN, 1]})


@pytest.mark.parametrize(
    ("policies", "edema", "fracture"),
    [
        ({}, [1, 0, NAN, 0], [NAN, NAN, 0, 1]),
        ({"uncertain": "zeros"}, [1, 0, 0, 0], [0, 0, 0, 1]),
        ({"uncertain": "ones"}, [1, 0, 1, 0], [1, 1, 0, 1]),
        ({"uncertain": "soft"}, [1, 0, 0.7, 0], [0.7, 0.7, 0, 1]),
        ({"uncertain": "soft", "soft_target": 0.55}, [1, 0, 0.55, 0], [0.55, 0.55, 0, 1]),
        ({"uncertain": "ones", "blank": "ignore"}, [1, 0, 1, NAN], [1, 1, NAN, 1]),
        ({"uncertain": "ignore", "blank": "ignore"}, [1, 0, NAN, NAN], [NAN, NAN, NAN, 1]),
    ],
)
def test_policies_by_hand(policies, edema, fracture):
    given = table()
    decided, decisions = apply_policies(given, **policies)
    np.testing.assert_array_equal(decided["Edema"], edema)
    np.testing.assert_array_equal(decided["Fracture"], fracture)
    pd.testing.assert_frame_equal(given, table())  # the caller's table stays as it was
    assert [decision.counts for decision in decisions] == [
        {"Edema": 1, "Fracture": 2},
        {"Edema": 1, "Fracture": 1},
    ]


def test_decisions_name_the_policy_and_only_labels_it_met():
    frame = pd.DataFrame({"Edema": [1.0, -1.0], "Fracture": [0.0, 1.0]})
    assert apply_policies(frame, "soft", "ignore", 0.6)[1] == (
        Decision("uncertain labels: soft (0.6)", {"Edema": 1}),
    )
    assert apply_policies(frame[["Fracture"]])[1] == ()


def test_policies_agree_with_a_count_by_hand_on_real_rows():
    rows = real_rows("chexpert_train.csv", 3000)
    findings = list(rows[0])[5:]
    frame = pd.DataFrame(
        {label: [float(row[label] or "nan") for row in rows] for label in findings}
    )
    decided, (uncertain, blank) = apply_policies(frame, "soft", "zero")
    cells = Counter((label, row[label]) for row in rows for label in findings)
    assert uncertain.counts == {k: n for k in findings if (n := cells[k, "-1.0"])}
    assert blank.counts == {k: n for k in findings if (n := cells[k, ""])}
    assert sum(uncertain.counts.values()) > 1000
    for label in findings:
        values = Counter(decided[label].tolist())
        assert values[1.0] == cells[label, "1.0"]
        assert values[0.7] == cells[label, "-1.0"]
        assert values[0.0] == cells[label, "0.0"] + cells[label, ""]


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (
            {"uncertain": "zero"},
            r"data.uncertain must be one of ignore, ones, .*'zero'.*mean 'zero",
        ),
        ({"blank": "zeros"}, r"data.blank must be one of ignore, zero; got 'zeros'"),
        (
            {"uncertain": "soft", "soft_target": 1},
            r"data.soft_target must be in \(0, 1\); got",
        ),
    ],
)
def test_policies_that_do_not_exist(policies, message):
    with pytest.raises(InputError, match=message):
        apply_policies(table(), **policies)


@pytest.mark.parametrize("value", [2, 0.5, -2, float("inf")])
def test_other_values_are_refused(value):
    frame = table()
    frame.loc[[1, 3], "Fracture"] = value
    message = (
        rf"label 'Fracture' is {value:g} in row 1 \(invalid cells: 2\); labels must be 1, 0, -1"
    )
    with pytest.raises(InputError, match=message):
        apply_policies(frame)


def test_add_up_joins_the_parts_of_a_collection():
    parts = [Decision("a", {"x": 1}), Decision("b", {"x": 5}), Decision("a", {"x": 2, "y": 3})]
    assert add_up(parts) == (Decision("a", {"x": 3, "y": 3}), Decision("b", {"x": 5}))
