"""Images, splits and labels of a tree of class folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import (
    NOBODY,
    SPLIT_NAMES,
    Collection,
    first_three,
    select_labels,
    study_table,
)
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.csv_cells import unknown_patients


@dataclass
class Keys(Data):
    """Keys of `data=folder`."""

    patient_pattern: str | None = MISSING


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom", ".npy")
NORMAL_NAMES = ("normal", "nofinding", "nofindings", "negative", "healthy")


def read(
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    patient_pattern: str | None = None,
) -> Collection:
    """Class folders, with or without train, val and test folders above them.

    Two classes give one label: the class that is not called normal, or else the second in
    alphabetical order. With more classes, each class except the normal one is a label.

    Args:
        root: directory of the class folders or of the split folders.
        labels: label columns to keep; None keeps all.
        patient_pattern: regular expression to search in the file name; its only group, or the group
            called `patient`, is the patient. None treats every image as a separate patient.

    Raises:
        InputError: for fewer than two classes, and for file names the pattern does not match.
    """
    import pandas as pd

    directory = existing_root(root)
    images = [
        (path, split, class_folder.name)
        for split, class_folder in class_folders(directory)
        for path in images_below(class_folder)
    ]
    names = class_labels(directory, sorted({name for _, _, name in images}))
    chosen = select_labels(names, labels)
    paths = [path for path, _, _ in images]
    table = study_table(
        paths,
        pd.DataFrame({label: [name == label for _, _, name in images] for label in chosen}),
        patients=match_patients(paths, patient_pattern) if patient_pattern else None,
        splits=[split for _, split, _ in images],
    )
    if patient_pattern:
        return Collection(table, directory)
    return Collection(table, directory, unknown_patients(len(table)), NOBODY)


def _subdirectories(directory: Path) -> list[Path]:
    folders = (p for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(folder for folder in folders if not _leads_up(folder))


def _leads_up(folder: Path) -> bool:
    """Whether a folder is a link to one of its parents; its images would repeat endlessly."""
    here = folder.parent.resolve()
    return folder.is_symlink() and folder.resolve() in (here, *here.parents)


def _is_image(path: Path) -> bool:
    # A zip file made on a Mac holds "._a.png", which is not an image.
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def images_below(directory: Path) -> list[Path]:
    """Image files at any depth, sorted; hidden folders, such as Jupyter's, are left out."""
    deeper = [path for folder in _subdirectories(directory) for path in images_below(folder)]
    return sorted([*images_in(directory), *deeper])


def images_in(directory: Path) -> list[Path]:
    """Image files directly in the directory, sorted."""
    return sorted(filter(_is_image, directory.iterdir()))


def class_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Pairs of split (None without split folders) and class folder, sorted by name.

    Raises:
        InputError: if there are both class folders and split folders.
    """
    folders = _subdirectories(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    if not splits:
        return [(None, folder) for folder in folders]
    # Folders that hold no images directly are ignored: the Kaggle zip contains a second copy.
    beside = [f.name for f in folders if f not in splits and any(map(_is_image, f.iterdir()))]
    if beside:
        raise InputError(
            f"data.root: {root} has class folders ({', '.join(beside)}) next to split folders "
            f"({', '.join(s.name for s in splits)}); move the class folders into the split folders"
        )
    return [(SPLIT_NAMES[s.name.lower()], c) for s in splits for c in _subdirectories(s)]


def class_labels(root: Path, classes: list[str]) -> list[str]:
    """Label columns of the classes, see `read`.

    Raises:
        InputError: for fewer than two classes, or if all of them are normal.
    """
    findings = [c for c in classes if re.sub("[^a-z]", "", c.lower()) not in NORMAL_NAMES]
    if len(classes) < 2 or not findings:
        raise InputError(
            f"data.root: {root} needs two or more class folders, such as normal and pneumonia, "
            f"with images ({' '.join(IMAGE_SUFFIXES)}); found {', '.join(classes) or 'none'}"
        )
    return findings[1:] if len(classes) == len(findings) == 2 else findings


def match_patients(paths: list[Path], pattern: str) -> list[str]:
    r"""The patient in each file name.

    >>> match_patients([Path("person12_virus_3.jpeg")], r"(person\d+)")
    ['person12']

    Raises:
        InputError: if the pattern is not valid, or does not match all file names.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise InputError(f"data.patient_pattern {pattern!r} is not valid: {error}") from error
    if regex.groups != 1 and "patient" not in regex.groupindex:
        raise InputError(
            f"data.patient_pattern {pattern!r} needs exactly one group, which matches the patient, "
            "or a group called (?P<patient>...)"
        )
    group = "patient" if "patient" in regex.groupindex else 1
    matches = [regex.search(path.name) for path in paths]
    patients = [match[group] if match else None for match in matches]
    unmatched = [path.name for path, patient in zip(paths, patients, strict=True) if not patient]
    if unmatched:
        raise InputError(
            f"data.patient_pattern {pattern!r} finds no patient in {len(unmatched)} of "
            f"{len(paths)} file names: {first_three(unmatched)}; correct the pattern"
        )
    return [str(patient) for patient in patients]
