"""Exact copies of images across splits. No message names an image or a patient."""

import numpy as np
import pandas as pd

from fluoroscope.choices import ON_DUPLICATE
from fluoroscope.commands import called
from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError, check_choice


def copy_groups(exact: pd.Series, usable: pd.Series) -> np.ndarray:
    """Group of copies to which each image belongs, int [N]; -1 for an image without a copy.

    Args:
        exact: exact hashes from the survey.
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
    """Rows to leave out so that no image has a copy in another split, bool [N], and the decision.

    Args:
        table: study table with splits.
        survey: of the same rows, all of them usable.
        on_duplicate: "stop" refuses copies across splits; "drop" leaves an image of train out if
            val or test has a copy, and one of val if test has a copy; "keep" only counts them.

    Raises:
        InputError: with "stop", if there are copies across splits.
    """
    check_choice("data.on_duplicate", on_duplicate, ON_DUPLICATE)
    split = table["split"].to_numpy()
    later = _also_later(copy_groups(survey["exact"], survey["reason"] == ""), split)
    if not later.any():
        return later, ()
    counts = {name: int((later & (split == name)).sum()) for name in ("train", "val")}
    counts = {name: count for name, count in counts.items() if count}
    if on_duplicate == "stop":
        listed = " and ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(
            f"images have an exact copy in val or test ({listed}), so the score would be too high; "
            "leave them out with data.on_duplicate=drop, or keep them with data.on_duplicate=keep; "
            f"{called('prepare')} audit=only lists them"
        )
    done = {"drop": "left out", "keep": "kept"}[on_duplicate]
    decision = Decision(f"images with an exact copy in val or test: {done}", counts)
    return later & (on_duplicate == "drop"), (decision,)


def _also_later(groups: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Images of train with a copy in val or test, and images of val with a copy in test."""
    in_test = np.isin(groups, groups[split == "test"])
    in_val = np.isin(groups, groups[split == "val"])
    found = (split == "train") & (in_val | in_test) | (split == "val") & in_test
    return found & (groups >= 0)
