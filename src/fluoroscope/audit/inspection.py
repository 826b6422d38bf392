"""All checks of a collection, in the order of the report."""

import pandas as pd

from fluoroscope.audit.duplicates import check_exact_duplicates, check_near_duplicates
from fluoroscope.audit.findings import Check, Findings, Studies, Subject
from fluoroscope.audit.image_checks import check_levels, check_polarity, check_size, check_usable
from fluoroscope.audit.origin_checks import check_origin
from fluoroscope.audit.prevalence import (
    check_prevalence,
    check_rare,
    check_unknown,
    check_views,
    prevalence_table,
)
from fluoroscope.audit.split_checks import (
    check_classes,
    check_images_per_patient,
    check_patients,
    check_presence,
)

CHECKS: tuple[Check, ...] = (
    *(check_patients, check_presence, check_classes, check_exact_duplicates, check_near_duplicates),
    *(check_usable, check_size, check_levels, check_polarity),
    *(check_prevalence, check_views, check_origin),
    *(check_rare, check_unknown, check_images_per_patient),
)


def inspect(
    studies: Studies,
    survey: pd.DataFrame,
    image_px: int | None = None,
    chosen: bool = True,
    undrawn: str | None = None,
    on_duplicate: str = "stop",
    patients_known: str = "all",
    named: bool = False,
    own: bool = False,
) -> Findings:
    """Run all checks.

    Args:
        studies: with their splits, if they have any.
        survey: result of `data.survey.survey_images`, one row per row of the study table.
        image_px: side of the images in training, to report images that it enlarges much.
        chosen: False if the labels are all of the source: a label that a split cannot score is then
            a soft finding, since a run may leave it out.
        undrawn: the reason, if splits should have been drawn and could not.
        on_duplicate: `data.on_duplicate` of a run; "stop" makes copies across splits hard findings.
        patients_known: of "all" images, of "some" or of "none".
        named: whether findings may name folders.
        own: `data.splits` of a run is "own": all splits were drawn by patient.
    """
    table = studies.table.reset_index(drop=True)
    survey = survey.reset_index(drop=True)
    keys = image_px, chosen, undrawn, on_duplicate, patients_known, named, own
    subject = Subject(table, studies.labels, survey, *keys)
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
        patients_known=patients_known,
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
    """`PA 62%, AP 38%`, the most frequent first; empty if none is recorded."""
    if views.isna().all():
        return ""
    shares = views.astype(object).where(views.notna(), "unknown").value_counts(normalize=True)
    return ", ".join(f"{view} {share:.0%}" for view, share in shares.items())
