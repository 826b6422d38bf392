"""Copies: images with the same pixels, and what they mean in and across splits."""

from collections.abc import Iterator

import pandas as pd

from fluoroscope.audit.findings import EXAMPLES, Finding, Subject, plural
from fluoroscope.data.copies import copy_groups


def check_copies(subject: Subject) -> Iterator[Finding]:
    """Images with the same pixels: across splits, within one, under two patients, other labels."""
    group = copy_groups(subject.survey["exact"], subject.survey["reason"] == "")
    rows = subject.table.assign(group=group)[group >= 0]
    if rows.empty:
        return
    groups = rows.groupby("group")
    splits = groups["split"].nunique()
    crossing, within = splits.index[splits > 1], splits.index[splits <= 1]
    yield from _found(
        "copies-across-splits",
        subject.on_duplicate == "stop",
        rows[rows["group"].isin(crossing)],
        "have a copy, pixel for pixel, in another split",
        {
            "stop": "the score is too good by them: leave the copies out (data.on_duplicate=drop)",
            "drop": "data.on_duplicate=drop leaves them out of the earlier split",
            "keep": "the score is too good by them: data.on_duplicate=keep keeps them",
        }[subject.on_duplicate],
    )
    yield from _found(
        "copies-within-a-split",
        False,
        rows[rows["group"].isin(within)],
        "have a copy, pixel for pixel, though not in another split",
        "keep one of each, or they count twice",
    )
    patients = groups["patient"].nunique()
    yield from _found(
        "copies-of-two-patients",
        False,
        rows[rows["group"].isin(patients.index[patients > 1])],
        "have a copy that is said to be of another patient",
        "one of the patients is wrong; correct the table",
    )
    differ = (groups[list(subject.labels)].nunique() > 1).any(axis=1)
    yield from _found(
        "copies-with-other-labels",
        False,
        rows[rows["group"].isin(differ.index[differ])],
        "have a copy whose labels contradict theirs",
        "look at the labels; at most one of the copies is right",
    )


def _found(name: str, hard: bool, rows: pd.DataFrame, what: str, advice: str) -> Iterator[Finding]:
    if len(rows):
        members = [tuple(map(int, found)) for found in rows.groupby("group").groups.values()]
        sentence = f"{len(rows):,} images {what} ({plural(len(members), 'picture')})"
        yield Finding(name, hard, len(rows), sentence, advice, tuple(members[:EXAMPLES]))
