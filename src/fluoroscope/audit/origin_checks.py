"""How and where images are stored, if that predicts a label: a network may learn it instead."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath

import pandas as pd

from fluoroscope.audit.findings import Finding, Subject
from fluoroscope.audit.prevalence import STRENGTH, p_text, tested
from fluoroscope.data.split_names import split_of
from fluoroscope.data.study_table import relative_paths
from fluoroscope.files.storage import storages

MOST_SIZES, GROUPS = 6, 4  # more sizes are put into groups of equal numbers of images
DEPTHS = 3  # of folders below the deepest common one
ADVICE = (
    "get images with and without the label from one source, stored in one way, or believe only "
    "scores on another collection"
)
NAMES = "; name_images=true names the folders"
LEARNT = {
    "bits-go-with-label": "bit depth",
    "format-goes-with-label": "file format",
    "size-goes-with-label": "size of the images",
    "folder-goes-with-label": "origin of the images",
}


def check_origin(subject: Subject) -> Iterator[Finding]:
    """Bit depth, format, size or folder of the files, where it predicts a label."""
    for name, origin in _origins(subject):
        own = replace(subject, table=subject.table.assign(origin=origin))
        for test in tested(own, "origin"):
            if test.strength > STRENGTH:
                yield Finding(
                    name,
                    False,
                    1,
                    f"{test.label!r} is present on {test.shares} (Cramér's V {test.strength:.2f}, "
                    f"p {p_text(test.p)}): a network may learn the {LEARNT[name]} instead",
                    f"{ADVICE}{NAMES if 'folder' in name and not subject.named else ''}",
                )


def _origins(subject: Subject) -> Iterator[tuple[str, pd.Series]]:
    """A finding's name, and the property that it is about in words; NaN where it is unknown."""
    bits, size, depth = "bits-go-with-label", "size-goes-with-label", "folder-goes-with-label"
    paths = subject.table["path"].tolist()
    kinds = pd.DataFrame(storages(paths), index=subject.table.index)
    usable = kinds["bits"] > 0
    yield bits, ("the " + kinds["bits"].astype(str) + "-bit images").where(usable)
    yield "format-goes-with-label", ("the " + kinds["format"] + " files").where(usable)
    yield size, _sizes(subject.survey)
    for folders in _folders(relative_paths(paths), subject.labels):
        yield depth, pd.Series(_shown(folders, subject.named), subject.table.index, dtype=object)


def _sizes(survey: pd.DataFrame) -> pd.Series:
    """The size of each image; if there are many sizes, its quarter by number of pixels."""
    usable = survey[survey["reason"] == ""].astype({"height": int, "width": int})
    pixels = usable["height"] * usable["width"]
    sizes = usable["width"].astype(str) + " x " + usable["height"].astype(str) + " px"
    if sizes.nunique() > MOST_SIZES:
        groups = pd.qcut(pixels, GROUPS, duplicates="drop")
        sizes = groups.map(lambda group: f"at most {group.right / 1e6:.2f} megapixels").astype(str)
    return ("the images of " + sizes).reindex(survey.index)


def _folders(paths: Sequence[str], labels: Sequence[str]) -> Iterator[list[str | None]]:
    """The folder of each image at each depth, except where folders are labels or splits."""
    parts = [PurePath(path).parts[:-1] for path in paths]
    for depth in range(DEPTHS):
        folders = [part[depth] if len(part) > depth else None for part in parts]
        names = {folder for folder in folders if folder}
        are_labels = {*map(_letters, names)} & {*map(_letters, labels)}
        if not are_labels and not any(map(split_of, names)):
            yield folders


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _shown(folders: Sequence[str | None], named: bool) -> list[str | None]:
    """`folder Hue`, or its number in the order of names, since names may be those of patients."""
    names = sorted({folder for folder in folders if folder})
    shown = {name: f"folder {name if named else n}" for n, name in enumerate(names, start=1)}
    return [shown[folder] if folder else None for folder in folders]
