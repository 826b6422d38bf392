"""Splits and shared images of a study table that joins several collections."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fluoroscope.choices import parse_fold
from fluoroscope.data.splits import SPLITS, assign_splits
from fluoroscope.data.study_table import COLLECTION, Decision


def assign_each(
    table: pd.DataFrame, labels: Sequence[str], *, keep_given: bool, **keys: Any
) -> pd.DataFrame:
    """As `assign_splits` for each collection; a patient of two keeps the split that one gave."""
    given = table["split"].where(table["split"].isin(["val", "test"]) & keep_given)
    split, settled = given.astype(object), dict[str, str]()
    for name, rows in table.groupby(COLLECTION, sort=False):
        elsewhere = given.notna() & (table[COLLECTION] != name)
        known = dict(zip(table["patient"][elsewhere], given[elsewhere], strict=True)) | settled
        undrawn = given[rows.index].isna()
        follow = undrawn & rows["patient"].isin(known)
        split[rows.index[follow]] = rows["patient"][follow].map(known)
        own = rows[~follow].drop(columns=COLLECTION)
        if (undrawn & ~follow).any():
            drawable = _drawable(own, labels, keys["fold"])
            split[own.index] = assign_splits(own, drawable, keep_given=keep_given, **keys)["split"]
        settled |= dict(zip(rows["patient"], split[rows.index], strict=True))
    return table.assign(split=split)


def _drawable(table: pd.DataFrame, labels: Sequence[str], fold: str | None) -> list[str]:
    """The labels that enough patients have and lack: a collection may not know the others."""
    parts = len(SPLITS) if fold is None else max(len(SPLITS), parse_fold("data.fold", fold)[1])
    counts = {
        label: [table["patient"][table[label] == value].nunique() for value in (0, 1)]
        for label in labels
    }
    return [label for label in labels if min(counts[label]) >= parts]


def count_shared(table: pd.DataFrame, survey: pd.DataFrame) -> list[Decision]:
    """Count the images with the same pixels as an image of another collection."""
    owners = table[COLLECTION].groupby(survey["exact"].to_numpy()).transform("nunique")
    count = int((owners > 1).sum())
    policy = "images that several collections share: kept"
    return [Decision(policy, {"images": count})] if count else []
