"""Checks of the splits: their patients, images and classes."""

from collections.abc import Iterator
from itertools import combinations

from fluoroscope.audit.findings import (
    NO_SPLIT,
    Finding,
    Subject,
    first_rows,
    fraction_of,
    split_phrase,
)
from fluoroscope.commands import called
from fluoroscope.data.splits import SPLITS
from fluoroscope.errors import plural

MOST_OF_A_SPLIT = 0.05


def check_patients(subject: Subject) -> Iterator[Finding]:
    """Patients in two splits, which make the score too high."""
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
            f"{plural(len(patients), 'patient')} in two splits ({where})",
            "set data.splits=own to split by patient, or check how patients are identified",
            first_rows(rows),
        )


def check_presence(subject: Subject) -> Iterator[Finding]:
    """Splits without images, and images without a split."""
    if subject.undrawn is not None:
        advice = "training with these keys stops for the same reason"
        yield Finding("no-splits", True, 1, f"no splits can be drawn: {subject.undrawn}", advice)
    rows = {name for name, _ in subject.splits()}
    if rows == {NO_SPLIT}:
        return  # the collection was not split yet
    is_test_only = rows == {"test"}
    for name in SPLITS:
        if name not in rows:
            redraw = "" if subject.own else "set data.splits=own to split by patient, or "
            advice = f"{redraw}add images to {name}"
            if is_test_only:
                advice = f"use it to score models ({called('evaluate')} split=all), not to train"
            sentence = f"the {name} split has no images"
            yield Finding("empty-split", not is_test_only, 1, sentence, advice)
    missing = subject.table["split"].isna() & (subject.survey["reason"] == "")
    if missing.any():
        yield Finding(
            "images-without-split",
            False,
            int(missing.sum()),
            f"{fraction_of(int(missing.sum()), len(missing))} are in no split",
            "assign them to a split" + ("" if subject.own else ", or set data.splits=own"),
            first_rows(subject.table.index[missing]),
        )


def check_classes(subject: Subject) -> Iterator[Finding]:
    """Labels that a split cannot score, for lack of positive or of negative images."""
    for name, rows in subject.splits():
        present, absent = ((rows[[*subject.labels]] == value).sum() for value in (1, 0))
        unscored = [label for label in subject.labels if not (present[label] and absent[label])]
        if unscored:
            counts = (
                f"{la!r} ({present[la]:,} with it, {absent[la]:,} without)" for la in unscored
            )
            yield Finding(
                "label-without-both-classes",
                subject.chosen,
                len(unscored),
                f"{split_phrase(name)} cannot score {', '.join(counts)}",
                "leave the label out of data.labels, or change the splits "
                f"({'data.val_frac, data.test_frac' if subject.own else 'data.splits=own'})",
            )


def check_images_per_patient(subject: Subject) -> Iterator[Finding]:
    """Patients with a large share of a split, and collections with one image per patient."""
    table = subject.table
    if len(table) > 1 and table["patient"].nunique() == len(table):
        unknown = subject.patients_known == "none"
        told = "if patients were not recorded, images of one patient may be in two splits"
        if unknown:
            told = "patients are unknown, so images of one patient may be in two splits"
        yield Finding(
            "no-patient-twice",
            False,
            len(table),
            f"each of the {len(table):,} images counts as another patient: {told}",
            "set data.patient_column or data.patient_pattern, if either identifies the patient",
        )
    elif subject.patients_known == "some":
        yield Finding(
            "patients-missing",
            False,
            1,
            "the patients of some images are unknown: images of one patient may be in two splits",
            "complete the patients, or leave out the images without one",
        )
    for name, rows in subject.splits():
        counts = rows["patient"].value_counts()
        many = counts[counts > max(MOST_OF_A_SPLIT * len(rows), 10)]
        if len(many) and len(counts) > 1:
            yield Finding(
                "patient-dominates",
                False,
                len(many),
                f"{fraction_of(len(many), len(counts), 'patients')} of {split_phrase(name)} "
                f"{'has' if len(many) == 1 else 'have each'} more than "
                f"{MOST_OF_A_SPLIT:.0%} of its {len(rows):,} images, up to {counts.max():,}",
                "check how patients are identified; if it is right, keep fewer images of each",
                first_rows(rows.index[rows["patient"].isin(many.index[:1])]),
            )
