"""Splits: patients and classes in them."""

from collections.abc import Iterator
from itertools import combinations

from fluoroscope.audit.findings import NO_SPLIT, Finding, Subject, called, of, some
from fluoroscope.data.splits import SPLITS

MOST_OF_A_SPLIT = 0.05


def check_patients(subject: Subject) -> Iterator[Finding]:
    """Patients in two splits: a score on patients that were trained on is too good."""
    splits_of = subject.table.groupby("patient")["split"].agg(set)
    shared = {
        f"{a} and {b}": splits_of.index[splits_of.map({a, b}.issubset)]
        for a, b in combinations(SPLITS, 2)
    }
    patients = {patient for names in shared.values() for patient in names}
    if patients:
        where = ", ".join(
            f"{len(names):,} in {pair}" for pair, names in shared.items() if len(names)
        )
        rows = subject.table.index[subject.table["patient"].isin(patients)]
        yield Finding(
            "patients-in-two-splits",
            True,
            len(patients),
            f"{len(patients):,} patients are in two splits ({where})",
            "set data.splits=own to split by patient, or check what names the patient",
            some(rows),
        )


def check_presence(subject: Subject) -> Iterator[Finding]:
    """Splits without images, and images without a split."""
    if subject.undrawn is not None:
        advice = "training with these keys stops for the same reason"
        yield Finding("no-splits", True, 1, f"no splits are drawn: {subject.undrawn}", advice)
    rows = {name for name, _ in subject.splits()}
    if rows == {NO_SPLIT}:
        return  # nothing was split yet
    tests_alone = rows == {"test"}
    for name in SPLITS:
        if name not in rows:
            advice = f"set data.splits=own to split by patient, or give {name} images"
            if tests_alone:
                advice = "score models on it (scripts/evaluate.py split=all); it can train none"
            told = f"the {name} split has no images"
            yield Finding("empty-split", not tests_alone, 1, told, advice)
    missing = subject.table["split"].isna() & (subject.survey["reason"] == "")
    if missing.any():
        yield Finding(
            "images-without-split",
            False,
            int(missing.sum()),
            f"{of(int(missing.sum()), len(missing))} are in no split",
            "give them a split, or set data.splits=own",
            some(subject.table.index[missing]),
        )


def check_classes(subject: Subject) -> Iterator[Finding]:
    """Labels that a split cannot score: without positive, or without negative images."""
    for name, rows in subject.splits():
        present, absent = ((rows[[*subject.labels]] == value).sum() for value in (1, 0))
        lacking = [label for label in subject.labels if not (present[label] and absent[label])]
        if lacking:
            counts = (f"{la!r} ({present[la]:,} with it, {absent[la]:,} without)" for la in lacking)
            yield Finding(
                "label-without-both-classes",
                subject.chosen,
                len(lacking),
                f"{called(name)} cannot score {', '.join(counts)}",
                "leave it out of data.labels, or change the splits (data.splits=own)",
            )


def check_images_per_patient(subject: Subject) -> Iterator[Finding]:
    """Patients that are most of a split, and collections in which every image is a patient."""
    table = subject.table
    if len(table) > 1 and table["patient"].nunique() == len(table):
        yield Finding(
            "no-patient-twice",
            False,
            len(table),
            f"each of the {len(table):,} images is a patient of its own: if patients were not "
            "recorded, images of one may be in two splits",
            "say what names the patient (data.patient_column, data.patient_pattern), if anything",
        )
    for name, rows in subject.splits():
        counts = rows["patient"].value_counts()
        many = counts[counts > max(MOST_OF_A_SPLIT * len(rows), 10)]
        if len(many) and len(counts) > 1:
            yield Finding(
                "patient-dominates",
                False,
                len(many),
                f"{of(len(many), len(counts), 'patients')} of {called(name)} "
                f"{'has' if len(many) == 1 else 'have each'} more than "
                f"{MOST_OF_A_SPLIT:.0%} of its {len(rows):,} images, up to {counts.max():,}",
                "check what names the patient; if it is right, keep fewer images of each",
                some(rows.index[rows["patient"].isin(many.index[:1])]),
            )
