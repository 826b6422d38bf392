"""Images, splits and labels of a tree of class folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import (
    NOBODY,
    Collection,
    Decision,
    first_three,
    select_labels,
    study_table,
)
from fluoroscope.errors import InputError, plural
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.class_folders import (
    Placed,
    beside_splits,
    class_labels,
    place,
    second_copy,
)
from fluoroscope.sources.reading.csv_cells import unknown_patients
from fluoroscope.sources.reading.dicom_headers import header_patients
from fluoroscope.sources.reading.doubtful import exclude_key, refuse_doubtful
from fluoroscope.sources.reading.patient_names import match_patients, propose_pattern
from fluoroscope.sources.reading.tree import Parts, Tree, look_through


@dataclass
class Keys(Data):
    """Keys of `data=folder`."""

    patient_pattern: str | None = MISSING
    dicom_patients: bool = MISSING
    exclude: list[str] = MISSING


def read(
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    patient_pattern: str | None = None,
    dicom_patients: bool = True,
    exclude: Sequence[str] = (),
) -> Collection:
    """Class folders, with or without train, val and test folders above them.

    Two classes give one label: the class that is not called normal, or else the second in
    alphabetical order. With more classes, each class except the normal one is a label.

    Args:
        root: directory of the class folders or of the split folders.
        labels: label columns to keep; None keeps all.
        patient_pattern: regular expression to search in the file name, or, if some file names have
            no match, in the path below the root; its only group, or the group called `patient`, is
            the patient.
        dicom_patients: without a pattern, the Patient ID of DICOM headers is the patient. An image
            without either is a patient of its own.
        exclude: patterns of the files and folders to leave out, such as `masks` or `*_seg.png`.

    Raises:
        InputError: for fewer than two classes; for folders that are neither splits nor classes; for
            masks, formats that are not read and two files of one film; for a pattern of
            `patient_pattern` or `exclude` that does not match.
    """
    import pandas as pd

    directory = existing_root(root)
    tree = look_through(directory, exclude)
    images = {path: tree.parts(path) for path in tree.images}
    refuse_doubtful(directory, tree, images, exclude)
    copies = second_copy(images)
    for path in copies:
        del images[path]
    _refuse_beside(directory, images, exclude)
    names = class_labels(directory, images)
    chosen = select_labels(names, labels)
    placed = place(images)
    files = ["/".join(images[image.path]) for image in placed]
    patients, told = _patients(placed, files, patient_pattern, dicom_patients)
    table = study_table(
        [image.path for image in placed],
        pd.DataFrame({label: [image.label == label for image in placed] for label in chosen}),
        patients=patients,
        splits=[image.split for image in placed],
    )
    aside = [path for paths in tree.excluded.values() for path in paths] + copies
    decisions = _left_out(tree, copies)
    patients_of = NOBODY if patients is None else None
    return Collection(table, directory, (*told, *decisions), patients_of, aside=tuple(aside))


def _patients(
    placed: Sequence[Placed], files: Sequence[str], pattern: str | None, from_headers: bool
) -> tuple[list[str] | None, tuple[Decision, ...]]:
    """The patient of each image, None if unknown, and what is said about it."""
    if pattern:
        return match_patients(files, pattern), ()
    named = header_patients([image.path for image in placed]) if from_headers else None
    return named or (None, (*unknown_patients(len(files)), *_proposal(files)))


def _refuse_beside(directory: Path, images: Mapping[str, Parts], exclude: Sequence[str]) -> None:
    names = beside_splits(images)
    if names:
        count = sum(parts[0] in names and len(parts) > 1 for parts in images.values())
        raise InputError(
            f"data.root: {directory} has folders ({first_three(names)}) next to split folders; "
            f"move their {plural(count, 'image')} into the split folders, or leave them out with "
            f"{exclude_key(names, exclude)}"
        )


def _left_out(tree: Tree, copies: Sequence[str]) -> tuple[Decision, ...]:
    """What was left out, counted.

    Raises:
        InputError: a pattern of `data.exclude` matches no file.
    """
    unused = [pattern for pattern, paths in tree.excluded.items() if not paths]
    if unused:
        raise InputError(
            f"data.exclude: no file or folder below data.root matches {unused[0]!r}; correct it or "
            "remove it"
        )
    counts = {pattern: len(paths) for pattern, paths in tree.excluded.items()}
    decisions = (
        Decision("data.exclude: left out", counts),
        Decision("a second copy of the split folders: left out", {"images": len(copies)}),
    )
    return tuple(decision for decision in decisions if any(decision.counts.values()))


def _proposal(names: Sequence[str]) -> tuple[Decision, ...]:
    """A pattern that obviously fits, with the patients it would find."""
    found = propose_pattern(names)
    if not found:
        return ()
    pattern, patients = found
    key = f"'data.patient_pattern=\"{pattern}\"'"  # as it is typed
    return (Decision(f"{key} would find", {"patients": patients}),)
