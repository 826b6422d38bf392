"""Checks of single images: unreadable, small, black, white or inverted ones."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fluoroscope.audit.findings import Finding, Subject, first_rows, fraction_of
from fluoroscope.data.image_stats import SMALLEST_PX

MOSTLY = 0.75  # share of the pixels; the darkest of 732 NIH films has 0.48
FRONTAL = ("PA", "AP")  # the views whose polarity can be recognised


def check_usable(subject: Subject) -> Iterator[Finding]:
    """Files that cannot be read, and images with the same value everywhere."""
    reason = subject.survey["reason"]
    constant = reason.str.startswith("every pixel is")
    for name, rows, problem in (
        ("unreadable-images", (reason != "") & ~constant, "cannot be read"),
        ("constant-images", constant, "have the same value everywhere"),
    ):
        if rows.any():
            yield Finding(
                name,
                True,
                int(rows.sum()),
                f"{fraction_of(int(rows.sum()), len(reason))} {problem}",
                "repair them, or leave them out with data.on_unreadable=skip",
                first_rows(np.flatnonzero(rows)),
            )


def check_size(subject: Subject) -> Iterator[Finding]:
    """Images too small to show a finding, or much smaller than in training."""
    usable = subject.usable()
    shorter = usable[["height", "width"]].min(axis=1)
    yield from _listed(
        "tiny-images",
        usable[shorter < SMALLEST_PX],
        subject,
        f"have less than {SMALLEST_PX} px on a side",
        "check that the files are the films, not their previews",
    )
    if subject.image_px:
        longer = usable[["height", "width"]].max(axis=1)
        small = (2 * longer < subject.image_px) & (shorter >= SMALLEST_PX)
        yield from _listed(
            "enlarged-images",
            usable[small],
            subject,
            f"are enlarged more than twice to data.image_px={subject.image_px}",
            "lower data.image_px: enlarging costs time and adds no detail",
        )


def check_levels(subject: Subject) -> Iterator[Finding]:
    """Images that are nearly all black, or nearly all white."""
    usable = subject.usable()
    for color, column in (("black", "dark_frac"), ("white", "bright_frac")):
        yield from _listed(
            f"mostly-{color}",
            usable[usable[column] > MOSTLY],
            subject,
            f"are {color} on more than {MOSTLY:.0%} of their area",
            "look at them: failed exposures, covers and wrong windows cannot be learnt from",
        )


def check_polarity(subject: Subject) -> Iterator[Finding]:
    """Frontal films that look like negatives: bone dark, air bright."""
    usable = subject.usable()
    view = subject.table["view"].reindex(usable.index)
    frontal = usable[view.isna() | view.isin(FRONTAL)]
    yield from _listed(
        "inverted-looking",
        frontal[frontal["polarity"] < 0],
        subject,
        "look inverted: the spine is darker than the lungs, or the abdomen than the corners",
        "look at them; a MONOCHROME1 image that is stored as MONOCHROME2 looks like this",
    )


def _listed(
    name: str, rows: pd.DataFrame, subject: Subject, problem: str, advice: str
) -> Iterator[Finding]:
    if len(rows):
        sentence = f"{fraction_of(len(rows), len(subject.survey))} {problem}"
        yield Finding(name, False, len(rows), sentence, advice, first_rows(rows.index))
