"""The study table, which every data set becomes: one row an image, and its checks.

Columns: `path` (absolute), `patient`, `split` ("train", "val", "test" or None: not assigned yet),
`view` (or None), then one float column a label: 1 present, 0 absent, NaN unknown, and a number
between for an uncertain label that is learnt as such; only 0 and 1 are scored and counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fluoroscope.choices import ON_MISSING
from fluoroscope.errors import InputError, check_choice

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


TABLE_COLUMNS = ("path", "patient", "split", "view")
# columns of the tables that labels stand in: this one, counts of the splits, predictions
RESERVED_NAMES = (*TABLE_COLUMNS, "images", "patients", "row", "group")
SPLIT_NAMES = {"train": "train", "val": "val", "test": "test"} | {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}


NOBODY = ""


class Decision(NamedTuple):
    """What a policy did to a collection, for the console, the run folder and the prepared copy."""

    policy: str  # such as "uncertain labels: ignore", "views other than PA: left out"
    counts: Mapping[str, int]  # labels concerned, or {"images": n}

    def describe(self) -> str:
        """In a line.

        >>> Decision("uncertain labels: zeros", {"Edema": 1200, "Mass": 0}).describe()
        'uncertain labels: zeros (Edema 1,200)'
        """
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items() if count)
        return f"{self.policy} ({counts})" if counts else self.policy


class Collection(NamedTuple):
    """A data set as its source reads it."""

    table: pd.DataFrame
    root: Path  # directory that all its files lie in
    decisions: tuple[Decision, ...] = ()
    # Whose numbers the patients' are; None: the source's own, NOBODY: patients are not known.
    patients_of: str | None = None
    source: str | None = None  # of a copy that of its collection


class Studies(NamedTuple):
    """A study table that was read, split and checked."""

    table: pd.DataFrame
    labels: list[str]
    fingerprint: str  # of images, labels and splits
    skipped: int  # images that cannot be read
    survey: pd.DataFrame  # what each image looks like; see `survey_images`
    decisions: tuple[Decision, ...] = ()
    patients_of: str | None = None  # register of the patient numbers; None if patients are unknown
    source: str = ""  # of a prepared copy, that of its collection


def study_table(
    paths: Iterable[str | Path],
    labels: pd.DataFrame,
    patients: Sequence[str] | None = None,
    splits: Sequence[str | None] | None = None,
    views: Sequence[str | None] | None = None,
) -> pd.DataFrame:
    """Study table from columns of equal length; without patients every image is its own.

    Raises:
        InputError: for a label that is called like a column of the table.
    """
    import pandas as pd
    import pyarrow

    for label in labels.columns:
        if label in RESERVED_NAMES:
            raise InputError(f"a label cannot be called {label!r}; give it another name")
    absolute = [os.path.abspath(path) for path in paths]
    columns = {
        "path": absolute,
        "patient": relative_paths(absolute) if patients is None else patients,
        "split": [None] * len(absolute) if splits is None else splits,
        "view": [None] * len(absolute) if views is None else views,
    }
    # Text is kept by Arrow, in half the memory; dtype object keeps None, which text turns to NaN.
    kinds: dict[str, Any] = {"path": "str", "patient": "str", "split": object, "view": object}
    frame = pd.DataFrame({n: pd.Series(list(columns[n]), dtype=kind) for n, kind in kinds.items()})
    pyarrow.default_memory_pool().release_unused()  # it keeps as much again as the text took
    return pd.concat([frame, labels.reset_index(drop=True).astype(float)], axis=1)


def relative_paths(paths: Sequence[str]) -> list[str]:
    """Paths below the deepest directory that holds them all, with forward slashes."""
    folders = {os.path.dirname(path) for path in paths}
    root = os.path.commonpath(folders) if folders else ""
    return [path[len(root) :].replace(os.sep, "/").lstrip("/") for path in paths]


def label_columns(table: pd.DataFrame) -> list[str]:
    return [str(column) for column in table.columns if column not in TABLE_COLUMNS]


def select_labels(available: Iterable[str], labels: Sequence[str] | None) -> list[str]:
    """The chosen labels in the order given, or all that are available.

    Raises:
        InputError: for something else than a list, and for a label that is not available.
    """
    if labels is None:
        return list(available)
    return _chosen("data.labels", labels, available)


def keep_views(collection: Collection, views: Sequence[str]) -> Collection:
    """Rows of the given view positions.

    Raises:
        InputError: where the table has no views, or none of that name.
    """
    table = collection.table
    known = sorted(table["view"].dropna().unique())
    if not known:
        raise InputError("data.views is set, but this data set records no views; remove data.views")
    chosen = _chosen("data.views", views, known)
    kept = table["view"].isin(chosen).to_numpy(bool)
    return _keep(collection, kept, f"views other than {', '.join(chosen)}: left out")


def check_files(
    collection: Collection, on_missing: str = "stop", follow_links: bool = False
) -> Collection:
    """Refuse images that are not on disk, that a path leads to from outside, or that come twice.

    Args:
        on_missing: "skip" leaves images out that are not on disk.
        follow_links: True takes images that links below the root lead to.

    Raises:
        InputError: says how many, and the first three.
    """
    import numpy as np

    check_choice("data.on_missing", on_missing, ON_MISSING)
    paths = collection.table["path"]
    _refuse_outside(paths.tolist(), collection.root, follow_links)
    there = np.array(list(_exist(paths)), bool)
    if not there.all() and (on_missing == "stop" or not there.any()):
        missing = paths[~there]
        raise InputError(
            f"{len(missing)} of {len(paths)} images are not on disk: {first_three(missing)}; "
            "check data.root, take their rows out of the table, or leave them out with "
            "data.on_missing=skip"
        )
    repeated = paths[paths.duplicated()].unique()
    if len(repeated):
        raise InputError(
            f"{len(repeated)} images are listed more than once: {first_three(repeated)}; "
            "keep one row an image"
        )
    return _keep(collection, there, "images that are not on disk: left out")


def _keep(collection: Collection, kept: np.ndarray, policy: str) -> Collection:
    if kept.all():
        return collection._replace(table=collection.table.reset_index(drop=True))
    decision = Decision(policy, {"images": int((~kept).sum())})
    table = collection.table[kept].reset_index(drop=True)
    return collection._replace(table=table, decisions=(*collection.decisions, decision))


def _exist(paths: Iterable[str]) -> Iterator[bool]:
    """Whether each is a file; a directory is listed once, not asked for each of its files."""
    listed: dict[str, set[str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _files(folder)
        yield name in listed[folder]


def _files(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _refuse_outside(paths: Sequence[str], root: Path, follow_links: bool) -> None:
    here = os.path.abspath(root)
    outside = [path for path in paths if not _is_below(path, here)]
    if outside:
        raise InputError(
            f"{len(outside)} images lie outside data.root={root}: {first_three(outside)}; correct "
            "their paths, or name a data.root that holds them all"
        )
    linked = [] if follow_links else list(_linked(paths, os.path.realpath(root)))
    if linked:
        raise InputError(
            f"{len(linked)} images lie outside data.root={root}, where links lead: "
            f"{first_three(linked)}; trust the links with data.follow_links=true"
        )


def _linked(paths: Iterable[str], home: str) -> Iterator[str]:
    """Those that a link, of the file or of a folder above it, leads out of `home`."""
    inside: dict[str, bool] = {}
    for path in paths:
        folder = os.path.dirname(path)
        if folder not in inside:
            inside[folder] = _is_below(os.path.realpath(folder), home)
        if not inside[folder] or (
            os.path.islink(path) and not _is_below(os.path.realpath(path), home)
        ):
            yield path


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def first_three(names: Iterable[object]) -> str:
    """`a, b, c, ...`."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def _chosen(key: str, values: Sequence[str], available: Iterable[str]) -> list[str]:
    available = list(available)
    if isinstance(values, str) or not values:
        example = values or available[0]
        raise InputError(
            f"{key} must be a list of one or more of {', '.join(available)}, written as "
            f"'{key}=[{example}]'; got {values!r}"
        )
    for value in values:
        check_choice(key, value, available)
    return list(dict.fromkeys(values))
