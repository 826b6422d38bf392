"""All checks of a collection, in the order they are told."""

import pandas as pd

from fluoroscope.audit.duplicates import check_copies
from fluoroscope.audit.findings import Check, Findings, Studies, Subject
from fluoroscope.audit.near_duplicates import check_lookalikes
from fluoroscope.audit.partition import (
    check_classes,
    check_images_per_patient,
    check_patients,
    check_presence,
)
from fluoroscope.audit.pictures import check_levels, check_polarity, check_size, check_usable
from fluoroscope.audit.prevalence import (
    check_prevalence,
    check_rare,
    check_unknown,
    check_views,
    prevalence_table,
)

CHECKS: tuple[Check, ...] = (
    *(check_patients, check_presence, check_classes, check_copies, check_lookalikes),
    *(check_usable, check_size, check_levels, check_polarity),
    *(check_prevalence, check_views, check_rare, check_unknown, check_images_per_patient),
)


def inspect(
    studies: Studies,
    survey: pd.DataFrame,
    image_px: int | None = None,
    chosen: bool = True,
    undrawn: str | None = None,
    on_duplicate: str = "stop",
) -> Findings:
    """What is wrong with the studies, and what is worth a look.

    Args:
        studies: with splits where there are some; they need not be checked before.
        survey: of `data.survey.survey_images`, a row a row of the study table.
        image_px: side that training scales the images to, to say where it enlarges them much.
        chosen: False where the labels are all that the source has: one that a split cannot score
            is then worth a look, since a run may leave it out.
        undrawn: why the studies have no splits, though they should.
        on_duplicate: what a run does with copies across splits; "stop" makes them a hard finding.
    """
    table = studies.table.reset_index(drop=True)
    seen = survey.reset_index(drop=True)
    subject = Subject(table, studies.labels, seen, image_px, chosen, undrawn, on_duplicate)
    found = [finding for check in CHECKS for finding in check(subject)]
    return Findings(
        images=len(table),
        patients=int(table["patient"].nunique()),
        labels=tuple(studies.labels),
        splits=_count(subject),
        prevalence=prevalence_table(subject),
        decisions=tuple(studies.decisions),
        skipped=studies.skipped,
        found=tuple(sorted(found, key=lambda finding: not finding.hard)),
    )


def _count(subject: Subject) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "split": name,
            "images": len(rows),
            "patients": rows["patient"].nunique(),
            "views": _views(rows["view"]),
        }
        for name, rows in subject.splits()
    )


def _views(views: pd.Series) -> str:
    """`PA 62 %, AP 38 %`, the frequent ones first; empty where none is recorded."""
    if views.isna().all():
        return ""
    shares = views.astype(object).where(views.notna(), "unknown").value_counts(normalize=True)
    return ", ".join(f"{view} {share:.0%}" for view, share in shares.items())
