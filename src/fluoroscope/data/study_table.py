"""The study table, the common form of all data sets, with one row per image; and its checks.

Columns: `path` (absolute), `patient`, `split` ("train", "val", "test" or None: not assigned yet),
`view` (or None), then one float column per label: 1 present, 0 absent, NaN unknown. A number
between 0 and 1 is the soft target of an uncertain label; only 0 and 1 are scored and counted.
Optional columns between them, for evaluations only: `sex` (F, M or None), `age` in whole years (or
NA), and, if the table joins several collections, `collection`.
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
# Columns of the tables that also have label columns: this one, counts of splits, predictions.
RESERVED_NAMES = (*TABLE_COLUMNS, "images", "patients", "row", "group")
NOBODY = ""
# Policies of images whose patient is not known; `patients_known` recognises them.
ALL_UNKNOWN = "patients unknown: every image counts as a separate patient"
SOME_UNKNOWN = "images without a patient: each counts as a separate patient"
SEVERAL = "several"  # the patients of the table name their registers, see `patient_marks`
COLLECTION = "collection"
PEOPLE: dict[str, Any] = {"sex": object, "age": "Int16"}  # optional columns, and their types


class Decision(NamedTuple):
    """The effect of a policy on a collection, for console, run folder and prepared copy."""

    policy: str  # such as "uncertain labels: ignore", "views other than PA: left out"
    counts: Mapping[str, int]  # by label, or {"images": n}

    def describe(self) -> str:
        """The policy and its counts in one line.

        >>> Decision("uncertain labels: zeros", {"Edema": 1200, "Mass": 0}).describe()
        'uncertain labels: zeros (Edema 1,200)'
        """
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items() if count)
        return f"{self.policy} ({counts})" if counts else self.policy


class Collection(NamedTuple):
    """A data set as its source reads it."""

    table: pd.DataFrame
    root: Path  # directory of all its files
    decisions: tuple[Decision, ...] = ()
    # Register of the patient numbers; None: that of the source, NOBODY: patients are unknown.
    patients_of: str | None = None
    source: str | None = None  # of a prepared copy, that of its collection
    aside: tuple[str, ...] = ()  # paths of images that the source left out and has counted
    written: bool = False  # by this program: its folder holds only files that the source knows


class Studies(NamedTuple):
    """A study table that was read, split and checked."""

    table: pd.DataFrame
    labels: list[str]
    fingerprint: str  # of images, labels and splits
    skipped: int  # images that cannot be read
    survey: pd.DataFrame  # statistics of each image; see `survey_images`
    decisions: tuple[Decision, ...] = ()
    patients_of: str | None = None  # register of the patient numbers; None if patients are unknown
    source: str = ""  # of a prepared copy, that of its collection
    earlier: tuple[Any, ...] = ()  # marks of the runs whose weights this one starts from

    @property
    def patients_known(self) -> str:
        """Of "all" images, "some" or "none"."""
        return patients_known(self.patients_of, self.decisions)

    def rows_of(self, split: str) -> np.ndarray:
        """Which rows of the table are in a split, bool [N]; "all" means every row."""
        return ((self.table["split"] == split) | (split == "all")).to_numpy(bool)


def patients_known(patients_of: str | None, decisions: Iterable[Decision]) -> str:
    """Whether the patients of a collection are known: of "all" images, of "some" or of "none".

    Args:
        patients_of: register of the patient numbers; None or `NOBODY` if patients are unknown.
        decisions: taken while the collection was read.
    """
    if not patients_of:
        return "none"
    unknown = any(decision.policy in (ALL_UNKNOWN, SOME_UNKNOWN) for decision in decisions)
    return "some" if unknown else "all"


def study_table(
    paths: Iterable[str | Path],
    labels: pd.DataFrame,
    patients: Sequence[str] | None = None,
    splits: Sequence[str | None] | None = None,
    views: Sequence[str | None] | None = None,
    **people: Sequence[Any],
) -> pd.DataFrame:
    """Study table from columns of equal length; without `patients` each image has another patient.

    Args:
        people: the optional columns `sex` and `age`.

    Raises:
        InputError: for a label with the name of a column.
    """
    import pandas as pd
    import pyarrow

    taken = {*RESERVED_NAMES, *people, *(f"{label}_probability" for label in labels.columns)}
    for label in labels.columns:
        if label in taken:
            raise InputError(f"a label cannot be called {label!r}; give it another name")
    absolute = [os.path.abspath(path) for path in paths]
    columns = {
        "path": absolute,
        "patient": relative_paths(absolute) if patients is None else patients,
        "split": [None] * len(absolute) if splits is None else splits,
        "view": [None] * len(absolute) if views is None else views,
    }
    # Arrow stores text in half the memory. dtype object keeps None, which text would turn to NaN.
    kinds: dict[str, Any] = {"path": "str", "patient": "str", "split": object, "view": object}
    columns |= people
    kinds |= {name: PEOPLE[name] for name in people}
    frame = pd.DataFrame({n: pd.Series(list(columns[n]), dtype=kind) for n, kind in kinds.items()})
    pyarrow.default_memory_pool().release_unused()  # as much memory as the text needs
    return pd.concat([frame, labels.reset_index(drop=True).astype(float)], axis=1)


def relative_paths(paths: Sequence[str]) -> list[str]:
    """Paths relative to their deepest common directory, with forward slashes."""
    folders = {os.path.dirname(path) for path in paths}
    root = os.path.commonpath(folders) if folders else ""
    return [path[len(root) :].replace(os.sep, "/").lstrip("/") for path in paths]


def label_columns(table: pd.DataFrame) -> list[str]:
    """The labels: all columns of floats."""
    return [str(column) for column, kind in table.dtypes.items() if kind == "float64"]


def people_columns(table: pd.DataFrame) -> list[str]:
    """The columns `sex` and `age`, if the table has them; a label may have the same name."""
    return [name for name in PEOPLE if name in table and table[name].dtype != "float64"]


class UnknownLabelError(InputError):
    """The collection lacks a label; it has those that are `available`, in its own spelling."""

    def __init__(self, message: str, available: Sequence[str]) -> None:
        super().__init__(message)
        self.available = available


def select_labels(available: Iterable[str], labels: Sequence[str] | None) -> list[str]:
    """The chosen labels in the order given, or all that are available.

    Raises:
        UnknownLabelError: a label is not available.
        InputError: `labels` is not a list.
    """
    known = list(available)
    if labels is None:
        return known
    try:
        return _chosen("data.labels", labels, known)
    except InputError as error:
        if isinstance(labels, str) or not labels:
            raise
        raise UnknownLabelError(str(error), known) from None


def keep_views(collection: Collection, views: Sequence[str]) -> Collection:
    """Rows of the given view positions.

    Raises:
        InputError: the table has no views, or lacks one of these views.
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
    """Refuse images that are not on disk, lie outside the root, or are listed twice.

    Args:
        on_missing: "skip" leaves out images that are not on disk.
        follow_links: True accepts links below the root that point outside it.

    Raises:
        InputError: there are such images; names the first three.
    """
    import numpy as np

    check_choice("data.on_missing", on_missing, ON_MISSING)
    paths = collection.table["path"]
    _refuse_outside(paths.tolist(), collection.root, follow_links)
    there = np.array(list(_exist(paths)), bool)
    if not there.all() and (on_missing == "stop" or not there.any()):
        missing, some = paths[~there], there.any()
        further = ", remove their rows from the table, or leave them out with data.on_missing=skip"
        raise InputError(
            f"images not on disk ({len(missing)} of {len(paths)}): {first_three(missing)}; "
            f"check data.root{further if some else ' and the paths in the table'}"
        )
    repeated = paths[paths.duplicated()].unique()
    if len(repeated):
        raise InputError(
            f"images listed more than once ({len(repeated)}): {first_three(repeated)}; "
            "keep one row per image"
        )
    return _keep(collection, there, "images that are not on disk: left out")


def _keep(collection: Collection, kept: np.ndarray, policy: str) -> Collection:
    if kept.all():
        return collection._replace(table=collection.table.reset_index(drop=True))
    decision = Decision(policy, {"images": int((~kept).sum())})
    table = collection.table[kept].reset_index(drop=True)
    return collection._replace(table=table, decisions=(*collection.decisions, decision))


def _exist(paths: Iterable[str]) -> Iterator[bool]:
    """Whether each path is a file; lists each directory once, which is faster."""
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
            f"images outside data.root={root} ({len(outside)}): {first_three(outside)}; correct "
            "their paths, or set data.root to a folder that contains them"
        )
    linked = [] if follow_links else list(_linked(paths, os.path.realpath(root)))
    if linked:
        raise InputError(
            f"links point to images outside data.root={root} ({len(linked)}): "
            f"{first_three(linked)}; accept the links with data.follow_links=true"
        )


def _linked(paths: Iterable[str], home: str) -> Iterator[str]:
    """Paths that point outside `home` through a link, of the file or of a folder above it."""
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
