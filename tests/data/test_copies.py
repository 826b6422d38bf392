import numpy as np
import pandas as pd
import pytest

from fluoroscope.data.copies import check_copies, copy_groups
from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError

# pictures:      0        0       1        1      2       2       3      3     4       5
SPLITS = ["train", "test", "train", "val", "val", "test", "train", "train", "val", "test"]
EXACT = [7, 7, -3, -3, 5, 5, 9, 9, 1, 0]


@pytest.fixture
def table():
    return pd.DataFrame({"split": SPLITS, "path": [f"/secret/{n}" for n in range(10)]})


@pytest.fixture
def survey():
    return pd.DataFrame({"exact": EXACT, "reason": ""})


def test_copy_groups():
    exact = pd.Series([4, 0, 4, 0, 0, -2])
    usable = pd.Series([True, False, True, True, False, True])
    assert copy_groups(exact, usable).tolist() == [0, -1, 0, -1, -1, -1]
    assert copy_groups(exact, usable | True).tolist() == [0, 1, 0, 1, 1, -1]


def test_copies_across_splits_stop_a_run(table, survey):
    with pytest.raises(InputError) as stopped:
        check_copies(table, survey)
    assert str(stopped.value) == (
        "images have an exact copy in val or test (2 of train and 1 of val), "
        "so the score would be too high; leave them out with data.on_duplicate=drop, or "
        "keep them with data.on_duplicate=keep; python scripts/prepare.py audit=only lists them"
    )
    with pytest.raises(InputError, match=r"data.on_duplicate must be one of drop, keep, stop"):
        check_copies(table, survey, "warn")


def test_drop_leaves_out_what_a_later_split_has(table, survey):
    dropped, decisions = check_copies(table, survey, "drop")
    assert np.flatnonzero(dropped).tolist() == [0, 2, 4]
    policy = "images with an exact copy in val or test: left out"
    assert decisions == (Decision(policy, {"train": 2, "val": 1}),)
    rest = table[~dropped], survey[~dropped]
    assert check_copies(*rest, "stop")[1] == ()


def test_keep_counts(table, survey):
    dropped, ((policy, counts),) = check_copies(table, survey, "keep")
    assert not dropped.any()
    assert policy.endswith("kept")
    assert counts == {"train": 2, "val": 1}


def test_copies_within_a_split_are_no_leak(table, survey):
    alone = table["split"].isin(["train"])
    dropped, decisions = check_copies(table[alone], survey[alone])
    assert not dropped.any()
    assert decisions == ()
