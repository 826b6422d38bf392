"""Images with the same pixels, within and across splits, and near duplicates across splits."""

from collections.abc import Iterator

import pandas as pd

from fluoroscope.audit.findings import EXAMPLES, Finding, Subject
from fluoroscope.data.copies import copy_groups
from fluoroscope.data.near_duplicates import MOST_PAIRS, across_splits
from fluoroscope.errors import plural


def check_exact_duplicates(subject: Subject) -> Iterator[Finding]:
    """Exact copies across splits, within a split, of two patients and with contradicting labels."""
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
        "have an exact copy in another split",
        {
            "stop": "they inflate the score: leave the copies out with data.on_duplicate=drop",
            "drop": "data.on_duplicate=drop leaves them out of the earlier split",
            "keep": "data.on_duplicate=keep keeps them, and they inflate the score",
        }[subject.on_duplicate],
    )
    yield from _found(
        "copies-within-a-split",
        False,
        rows[rows["group"].isin(within)],
        "have an exact copy, but not in another split",
        "keep one of each; otherwise they count twice",
    )
    patients = groups["patient"].nunique()
    yield from _found(
        "copies-of-two-patients",
        False,
        rows[rows["group"].isin(patients.index[patients > 1])],
        "have an exact copy that belongs to another patient",
        "one of the patients is wrong: correct the table",
    )
    differ = (groups[list(subject.labels)].nunique() > 1).any(axis=1)
    yield from _found(
        "copies-with-other-labels",
        False,
        rows[rows["group"].isin(differ.index[differ])],
        "have an exact copy with contradicting labels",
        "check the labels: at most one of the copies is right",
    )


def check_near_duplicates(subject: Subject) -> Iterator[Finding]:
    """Near duplicates across splits; see `data.near_duplicates` for how they are found."""
    found, proposed = across_splits(subject.table, subject.survey)
    if found:
        kinds = pd.Series([pair.kind for pair in found]).value_counts(sort=False)
        listed = ", ".join(f"{count:,} as {kind}" for kind, count in kinds.items())
        more = f" among the {MOST_PAIRS:,} nearest" if proposed >= MOST_PAIRS else ""
        yield Finding(
            "near-duplicates-across-splits",
            False,
            len(found),
            f"{plural(len(found), 'pair')} of images in two splits{more} look like the same film "
            f"({listed})",
            "look at them; if they are the same film, keep all copies in one split",
            tuple((pair.row, pair.other) for pair in found[:EXAMPLES]),
        )


def _found(name: str, hard: bool, rows: pd.DataFrame, what: str, advice: str) -> Iterator[Finding]:
    if len(rows):
        members = [tuple(map(int, found)) for found in rows.groupby("group").groups.values()]
        sentence = f"{len(rows):,} images {what} ({plural(len(members), 'group')} of copies)"
        yield Finding(name, hard, len(rows), sentence, advice, tuple(members[:EXAMPLES]))
