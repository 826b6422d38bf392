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
from fluoroscope.sources.folder import images_below


@dataclass
class Keys(Data):
    """Keys of `data=shenzhen`."""

    hospital: str = one_of("both", "shenzhen", "montgomery")


PREFIXES = {"shenzhen": ("CHNCXR",), "montgomery": ("MCUCXR",), "both": ("CHNCXR", "MCUCXR")}
NAME = re.compile(r"(?P<patient>(?P<set>CHNCXR|MCUCXR)_\d+)_(?P<label>[01])\.png")


def read(
    root: str | Path | None, labels: Sequence[str] | None = None, hospital: str = "both"
) -> Collection:
    """Films whose names tell the label; a patient has one. No split is given.

    Args:
        root: directory above the images, at any depth; folders of masks are left out.
        labels: Tuberculosis.
        hospital: "shenzhen", "montgomery", or "both" for what is found.

    Raises:
        InputError: where there is no such film, or one twice.
    """
    import pandas as pd

    directory = existing_root(root)
    chosen = select_labels(["Tuberculosis"], labels)
    films = [
        (path, found)
        for path in images_below(directory)
        if (found := NAME.fullmatch(path.name))
        and found["set"] in PREFIXES[hospital]
        and not _is_mask(path.relative_to(directory))
    ]
    if not films:
        names = " or ".join(f"{prefix}_0001_0.png" for prefix in PREFIXES[hospital])
        raise InputError(f"data.root: {directory} holds no images named like {names}")
    patients = pd.Series([found["patient"] for _, found in films])
    if patients.duplicated().any():
        twice = patients[patients.duplicated()]
        raise InputError(
            f"data.root: {len(twice)} films below {directory} are there twice: "
            f"{first_three(twice)}; name one of the folders"
        )
    present = [int(found["label"]) for _, found in films]
    table = study_table(
        [path for path, _ in films],
        pd.DataFrame(dict.fromkeys(chosen, present)),
        patients=patients.tolist(),
    )
    return Collection(table, directory)


def _is_mask(path: Path) -> bool:
    return any("mask" in folder.lower() for folder in path.parts[:-1])
