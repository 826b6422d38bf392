"""Patients by the names of files and folders."""

import re
from collections import Counter
from collections.abc import Sequence

from fluoroscope.data.study_table import first_three
from fluoroscope.errors import InputError

# A proposal needs so many patients, and so many images per patient on average.
FEWEST, IMAGES = 5, (1.25, 30)
PREFIXES = (r"^([^-_ ]*\d[^-_ ]*)[-_ ]", r"^(.*\d.*)[-_ ][^-_ ]+$")
FOLDER = r"^(?:[^/]+/){%d}([^/]+)/"


def match_patients(names: Sequence[str], pattern: str) -> list[str]:
    r"""The patient in each file name, or in each path if some file names have none.

    Args:
        names: paths below the root, with forward slashes.
        pattern: regular expression; its only group, or the group called `patient`, is the patient.

    >>> match_patients(["sick/person12_virus_3.jpeg"], r"(person\d+)")
    ['person12']
    >>> match_patients(["sick/PAT7/study1/x.png"], r"(PAT\d+)")
    ['PAT7']

    Raises:
        InputError: if the pattern is not valid, or finds no patient in a path.
    """
    regex = _compile(pattern)
    files = [name.rpartition("/")[2] for name in names]
    found = _search(regex, files)
    if not all(found):
        found = _search(regex, names)
    unmatched = [file for file, patient in zip(files, found, strict=True) if not patient]
    if unmatched:
        raise InputError(
            f"data.patient_pattern {pattern!r} finds no patient in {len(unmatched)} of "
            f"{len(names)} file names: {first_three(unmatched)}, nor in their paths below "
            "data.root; correct the pattern"
        )
    return [str(patient) for patient in found]


def propose_pattern(names: Sequence[str]) -> tuple[str, int] | None:
    """A pattern by which images obviously belong to patients, and the number of patients.

    Folders are tried from the first below the root, then what file names begin with.

    >>> propose_pattern([f"sick/{patient}/{film}.png" for patient in range(9) for film in (1, 2)])
    ('^(?:[^/]+/){1}([^/]+)/', 9)
    """
    depth = min((name.count("/") for name in names), default=0)
    for pattern in (*(FOLDER % level for level in range(1, depth)), *PREFIXES):
        regex = re.compile(pattern)
        searched = names if pattern.startswith("^(?:") else [n.rpartition("/")[2] for n in names]
        found = _search(regex, searched)
        if all(found) and _is_obvious(Counter(found)):
            return pattern, len(set(found))
    return None


def _is_obvious(images: Counter[str | None]) -> bool:
    """Whether so many groups of so many images may be patients; no group has a fifth of all."""
    total = images.total()
    least, most = IMAGES
    usual = least <= total / len(images) <= most
    return len(images) >= FEWEST and usual and max(images.values()) <= max(total / 5, 2)


def _search(regex: re.Pattern[str], names: Sequence[str]) -> list[str | None]:
    group = "patient" if "patient" in regex.groupindex else 1
    matches = (regex.search(name) for name in names)
    return [match[group] if match else None for match in matches]


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise InputError(f"data.patient_pattern {pattern!r} is not valid: {error}") from error
    if regex.groups != 1 and "patient" not in regex.groupindex:
        raise InputError(
            f"data.patient_pattern {pattern!r} needs exactly one group, which matches the patient, "
            "or a group called (?P<patient>...)"
        )
    return regex
