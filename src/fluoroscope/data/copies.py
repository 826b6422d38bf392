"""Images with the same pixels in two splits: scores on what was trained on are too good."""

import numpy as np
import pandas as pd

from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError, check_choice

ON_DUPLICATE = ("stop", "drop", "keep")


def copy_groups(exact: pd.Series, usable: pd.Series) -> np.ndarray:
    """Number of the picture of each image that has a copy, -1 of each that has none, int [N].

    Args:
        exact: hashes of the survey.
        usable: False leaves an image out.
    """
    repeated = exact.duplicated(keep=False) & usable
    repeated &= exact.where(usable).duplicated(keep=False)
    groups = np.full(len(exact), -1)
    groups[repeated] = pd.factorize(exact[repeated])[0]
    return groups


def check_copies(
    table: pd.DataFrame, survey: pd.DataFrame, on_duplicate: str = "stop"
) -> tuple[np.ndarray, tuple[Decision, ...]]:
    """Rows to leave out so that no picture is in two splits, bool [N], and what was decided.

    Args:
        table: study table with splits.
        survey: of the same rows, all of them usable.
        on_duplicate: "stop" refuses copies across splits; "drop" leaves them out of train where
            val or test has one, and out of val where test has one; "keep" only counts them.

    Raises:
        InputError: with "stop": how many images, and in which splits. Names none of them.
    """
    check_choice("data.on_duplicate", on_duplicate, ON_DUPLICATE)
    split = table["split"].to_numpy()
    later = _also_later(copy_groups(survey["exact"], survey["reason"] == ""), split)
    if not later.any():
        return later, ()
    counts = {name: int((later & (split == name)).sum()) for name in ("train", "val")}
    counts = {name: count for name, count in counts.items() if count}
    if on_duplicate == "stop":
        told = " and ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(
            f"images have a copy, pixel for pixel, in a split that scores ({told}), so the score "
            "would be too good; leave them out with data.on_duplicate=drop, or keep them with "
            "data.on_duplicate=keep; python scripts/prepare.py audit=only lists them"
        )
    done = {"drop": "left out", "keep": "kept"}[on_duplicate]
    decision = Decision(f"images with a copy in a split that scores: {done}", counts)
    return later & (on_duplicate == "drop"), (decision,)


def _also_later(groups: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Images of train with a copy in val or test, and of val with one in test."""
    in_test = np.isin(groups, groups[split == "test"])
    in_val = np.isin(groups, groups[split == "val"])
    found = (split == "train") & (in_val | in_test) | (split == "val") & in_test
    return found & (groups >= 0)
