"""The tuberculosis sets of Shenzhen and of Montgomery County."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import one_of
from fluoroscope.data.study_table import Collection, first_three, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.tree import Parts, film_key, look_through


@dataclass
class Keys(Data):
    """Keys of `data=shenzhen`."""

    hospital: str = one_of("both", "shenzhen", "montgomery")


PREFIXES = {"shenzhen": ("CHNCXR",), "montgomery": ("MCUCXR",), "both": ("CHNCXR", "MCUCXR")}
NAME = re.compile(r"(?P<patient>(?P<set>CHNCXR|MCUCXR)_\d+)_(?P<label>[01])")


def read(
    root: str | Path | None, labels: Sequence[str] | None = None, hospital: str = "both"
) -> Collection:
    """Films with the label in their name, one per patient. The collection has no splits.

    Args:
        root: directory with the images at any depth; folders of masks are left out.
        labels: Tuberculosis.
        hospital: "shenzhen", "montgomery", or "both" for all that are found.

    Raises:
        InputError: if there is no film with such a name, or a film is found twice.
    """
    import pandas as pd

    directory = existing_root(root)
    chosen = select_labels(["Tuberculosis"], labels)
    tree = look_through(directory)
    films = [
        (path, found)
        for path in tree.images
        if (found := NAME.fullmatch(film_key((parts := tree.parts(path))[-1]).upper()))
        and found["set"] in PREFIXES[hospital]
        and not _is_mask(parts)
    ]
    if not films:
        names = " or ".join(f"{prefix}_0001_0.png" for prefix in PREFIXES[hospital])
        raise InputError(
            f"data.root: {directory} has no images with names such as {names}; "
            f"{_root_above(directory) or 'check data.root'}"
        )
    patients = pd.Series([found["patient"] for _, found in films])
    if patients.duplicated().any():
        twice = patients[patients.duplicated()]
        raise InputError(
            f"data.root: {directory} contains {len(twice)} of the films twice: "
            f"{first_three(twice)}; set data.root to a folder with one copy"
        )
    present = [int(found["label"]) for _, found in films]
    table = study_table(
        [path for path, _ in films],
        pd.DataFrame(dict.fromkeys(chosen, present)),
        patients=patients.tolist(),
    )
    return Collection(table, directory)


def _root_above(root: Path) -> str:
    """Advice to set the root one or two levels up, if the folder of films is there."""
    for upper in root.parents[:2]:
        if any(upper.glob("CXR_png")) or any(upper.glob("*/CXR_png")):
            return f"set data.root={upper}"
    return ""


def _is_mask(parts: Parts) -> bool:
    return any("mask" in folder.lower() for folder in parts[:-1])
