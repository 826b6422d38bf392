"""Prevalence of each label, with its uncertainty, and differences between splits or views.

Images of one patient resemble each other: intervals allow for it by the design effect, and tests
use one image per patient, drawn at random.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from fluoroscope.audit.findings import Finding, Subject, first_rows, fraction_of, split_phrase

RARE = 10
ALPHA = 0.01  # of all tests of one kind together
RATIO, STRENGTH = 1.25, 0.2  # smallest reported ratio of prevalences, and Cramér's V
MANY_UNKNOWN = 0.5
EXPECTED = 5  # images that a chi-squared test needs in every cell, if nothing depended on anything


def prevalence_table(subject: Subject) -> pd.DataFrame:
    """One row per label and split: `label`, `split`, `present`, `absent`, `between` (soft targets),
    `unknown`, `prevalence` and its 95 % interval `low`, `high` (NaN if no image is labelled).
    """
    rows = [
        {"label": label, "split": name, **_count(images[label]), **_interval(images, label)}
        for label in subject.labels
        for name, images in subject.splits()
    ]
    return pd.DataFrame(rows)


def check_rare(subject: Subject) -> Iterator[Finding]:
    """Labels that too few images have for a precise score."""
    for name, images in subject.splits():
        counts = {label: int((images[label] == 1).sum()) for label in subject.labels}
        rare = {label: str(count) for label, count in counts.items() if 0 < count < RARE}
        yield from _about_labels(
            "rare-label",
            rare,
            f"{split_phrase(name)} has fewer than {RARE} images with {{which}}",
            "leave them out of data.labels, or do not rely on their scores",
        )


def check_unknown(subject: Subject) -> Iterator[Finding]:
    """Labels that are unknown for most images of a split."""
    for name, images in subject.splits():
        shares = images[list(subject.labels)].isna().mean()
        many = {str(k): f"{share:.0%}" for k, share in shares.items() if share > MANY_UNKNOWN}
        yield from _about_labels(
            "mostly-unknown",
            many,
            f"{split_phrase(name)} has {{which}} unknown for more than half of its images",
            "check the policies for blank and uncertain labels; unknown labels are not learnt",
        )


def _about_labels(
    name: str, values: dict[str, str], sentence: str, advice: str
) -> Iterator[Finding]:
    if values:
        which = "1 label" if len(values) == 1 else f"{len(values)} labels"
        listed = ", ".join(f"{label} {value}" for label, value in values.items())
        full = f"{sentence.format(which=which)}: {listed}"
        yield Finding(name, False, len(values), full, advice)


def check_prevalence(subject: Subject) -> Iterator[Finding]:
    """Labels that are more frequent in one split than in another, beyond chance."""
    for test in tested(subject, "split"):
        if test.highest > RATIO * test.lowest:
            yield Finding(
                "prevalence-differs",
                False,
                1,
                f"{test.label!r} is present on {test.shares} (p {p_text(test.p)})",
                ("" if subject.own else "stratify with data.splits=own; ")
                + "scores that depend on prevalence differ between the splits",
            )


def check_views(subject: Subject) -> Iterator[Finding]:
    """Missing views, and views that predict a label, which a network may learn instead."""
    missing = subject.table["view"].isna()
    if 0 < missing.sum() < len(missing):
        yield Finding(
            "views-missing",
            False,
            int(missing.sum()),
            f"{fraction_of(int(missing.sum()), len(missing))} have no view position",
            "data.views=[PA,AP] keeps the images with a known view",
            first_rows(subject.table.index[missing]),
        )
    for test in tested(subject, "view"):
        if test.strength > STRENGTH:
            yield Finding(
                "view-goes-with-label",
                False,
                1,
                f"{test.label!r} is present on {test.shares} (Cramér's V {test.strength:.2f}, p "
                f"{p_text(test.p)}): a network may learn the view instead",
                "train on one view (data.views=[PA]), or score each view separately",
            )


class Test(NamedTuple):
    """Attributes:
    shares: prevalence of each value, `12.0% of train, 30.1% of test`.
    strength: Cramér's V.
    p: corrected for the number of labels by Holm's method.
    """

    label: str
    shares: str
    lowest: float
    highest: float
    strength: float
    p: float


def tested(subject: Subject, column: str) -> Iterator[Test]:
    """Labels that depend on the column beyond chance; rare values of the column are left out.

    Source: S. Holm, A simple sequentially rejective multiple test procedure (1979); H. Cramér,
        Mathematical Methods of Statistics (1946), section 21.9.
    """
    drawn = subject.table.sample(frac=1, random_state=0).drop_duplicates("patient")
    tables = {label: _cross(drawn, label, column) for label in subject.labels}
    tables = {label: table for label, table in tables.items() if min(table.shape) > 1}
    if not tables:
        return
    corrected = multipletests([*map(_p_value, tables.values())], method="holm")[1]
    for (label, table), p in zip(tables.items(), corrected, strict=True):
        if p < ALPHA:
            shares = _shares(subject.table, label, column)
            shares = shares[shares.index.isin(table.index)]
            text = ", ".join(f"{share:.1%} of {value}" for value, share in shares.items())
            strength = chi2_contingency(table).statistic / table.to_numpy().sum()
            yield Test(label, text, shares.min(), shares.max(), float(np.sqrt(strength)), float(p))


def _cross(rows: pd.DataFrame, label: str, column: str) -> pd.DataFrame:
    """Images by value of the column and label, without values that are too rare for a test."""
    clear = rows[rows[label].isin([0, 1]) & rows[column].notna()]
    counts = pd.crosstab(clear[column], clear[label])
    rarer = counts.sum().min() / max(len(clear), 1)  # share of the rarer of the two classes
    frequent = counts[counts.sum(axis=1) * rarer >= EXPECTED]
    return frequent if len(frequent) > 1 else counts


def _p_value(table: pd.DataFrame) -> float:
    """P of independence; 1 if there are too few images for any test of more than two values."""
    result = chi2_contingency(table)
    if result.expected_freq.min() >= EXPECTED:
        return float(result.pvalue)
    return float(fisher_exact(table).pvalue) if table.shape == (2, 2) else 1.0


def _shares(rows: pd.DataFrame, label: str, column: str) -> pd.Series:
    clear = rows[rows[label].isin([0, 1]) & rows[column].notna()]
    return clear.groupby(column, sort=False)[label].mean()


def p_text(value: float) -> str:
    """A p value; never as zero."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(values: pd.Series) -> dict[str, int]:
    present, absent = int((values == 1).sum()), int((values == 0).sum())
    unknown = int(values.isna().sum())
    between = len(values) - present - absent - unknown
    return {"present": present, "absent": absent, "between": between, "unknown": unknown}


def _interval(images: pd.DataFrame, label: str) -> dict[str, float]:
    """Prevalence with Wilson's interval, for the effective number of independent images.

    Source: E. Korn, B. Graubard, Confidence intervals for proportions with small expected number of
        positive counts estimated from survey data (1998), Survey Methodology 24.
    """
    clear = images[images[label].isin([0, 1])]
    if clear.empty:
        return dict.fromkeys(("prevalence", "low", "high"), float("nan"))
    share = float(clear[label].mean())
    effective = len(clear) / _design_effect(clear, label, share)
    low, high = proportion_confint(share * effective, effective, method="wilson")
    return {"prevalence": share, "low": max(0.0, float(low)), "high": float(high)}


def _design_effect(images: pd.DataFrame, label: str, share: float) -> float:
    """Variance of the share over that of as many images of different patients; at least 1."""
    excess = (images[label] - share).groupby(images["patient"]).sum()
    simple = share * (1 - share) * len(images)
    if simple == 0 or len(excess) < 2:
        return 1.0
    clustered = float((excess**2).sum()) * len(excess) / (len(excess) - 1)
    return max(1.0, clustered / simple)
