import numpy as np
import pandas as pd
import pytest

from fluoroscope.data.copies import check_copies
from fluoroscope.errors import InputError

# hash of the pixels and split: 7 is in all three, 8 in train and val, 9 twice in train alone
ROWS = [(7, "train"), (7, "test"), (9, "train"), (8, "val"), (7, "val"), (9, "train"), (8, "train")]
TABLE = pd.DataFrame({"split": [split for _, split in ROWS]})
SURVEY = pd.DataFrame({"exact": [exact for exact, _ in ROWS], "reason": ""})


def test_copies_leave_the_earlier_split():
    out, (decision,) = check_copies(TABLE, SURVEY, "drop")
    assert np.flatnonzero(out).tolist() == [0, 4, 6]
    assert decision.policy == "images with a copy in a split that scores: left out"
    assert decision.counts == {"train": 2, "val": 1}
    kept = [row for row, left in zip(ROWS, out, strict=True) if not left]
    assert all(len({s for e, s in kept if e == exact}) == 1 for exact, _ in kept)


def test_copies_can_be_kept():
    out, (decision,) = check_copies(TABLE, SURVEY, "keep")
    assert not out.any()
    assert decision.counts == {"train": 2, "val": 1}


def test_copies_stop_a_run():
    with pytest.raises(InputError, match=r"^2 images of train and 1 images of val .*=drop"):
        check_copies(TABLE, SURVEY)
    with pytest.raises(InputError, match=r"data\.on_duplicate must be one of"):
        check_copies(TABLE, SURVEY, "ignore")


def test_copies_within_a_split_are_nobodys_business():
    for table, survey in (
        (TABLE, SURVEY.assign(exact=range(len(TABLE)))),
        (TABLE.assign(split="train"), SURVEY),
    ):
        out, decisions = check_copies(table, survey)
        assert not out.any()
        assert decisions == ()
