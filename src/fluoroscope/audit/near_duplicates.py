"""Near duplicates across splits as a finding; see `data.near_duplicates` for how they are found."""

from collections.abc import Iterator

import pandas as pd

from fluoroscope.audit.findings import EXAMPLES, Finding, Subject
from fluoroscope.data.near_duplicates import MOST_PAIRS, across_splits
from fluoroscope.errors import plural


def check_near_duplicates(subject: Subject) -> Iterator[Finding]:
    """Near duplicates across splits, found by perceptual hash and confirmed by their details."""
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
