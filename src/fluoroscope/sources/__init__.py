"""Data sets to the study table: one module a source, found by its name; no other code knows them.

A source's module has `read(root, labels, **keys)`, whose keys are those of its class in
`sources.settings`, and returns a `Collection`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoroscope.errors import InputError, check_choice
from fluoroscope.sources.settings import SOURCES, Data

READING = ("source", "root", "labels", "views", "on_missing", "follow_links")

if TYPE_CHECKING:
    from fluoroscope.data.study_table import Collection


def load(
    source: str,
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    views: Sequence[str] | None = None,
    on_missing: str = "stop",
    follow_links: bool = False,
    **options: object,
) -> "Collection":
    """Studies of a source; every image in them exists, lies below the root and is listed once.

    Args:
        source: a key of `SOURCES`.
        root: directory of the data set.
        labels: label columns in the wanted order; None keeps what the source has.
        views: view positions to keep, such as PA; None keeps all.
        on_missing: "stop" refuses images that are not on disk, "skip" leaves them out.
        follow_links: whether links may lead out of the root.
        options: the further arguments of the source's `read`.

    Raises:
        InputError: for an unknown source, label or view, for missing, repeated or no images, and
            for a place or a name that cannot be used.
    """
    # `sources.settings` is read before anything heavy is imported.
    from fluoroscope.data.study_table import check_files, keep_views

    check_choice("data", source, SOURCES)
    module = import_module(f"fluoroscope.sources.{source}")
    with _usable(source, root):
        collection: Collection = module.read(root=root, labels=labels, **options)
    if collection.patients_of is None:
        collection = collection._replace(patients_of=source)
    if len(collection.table) and views is not None:
        collection = keep_views(collection, views)
    if collection.table.empty:
        raise InputError(f"data={source} has no images at {root}; check data.root")
    return check_files(collection, on_missing, follow_links)


def load_section(data: Mapping[str, Any]) -> "Collection":
    """`load` by the data section of a configuration; its other keys are of splits and batches."""
    common = Data.__dataclass_fields__
    return load(**{k: v for k, v in data.items() if k in READING or k not in common})


@contextmanager
def _usable(source: str, root: str | Path | None) -> Iterator[None]:
    """What the system refuses, and names that are no text, in a sentence."""
    try:
        yield
    except OSError as error:
        where, reason = error.filename or root, error.strerror or error
        raise InputError(
            f"data={source} cannot use {where}: {reason}; check data.root, and what may be read "
            "and written there"
        ) from error
    except UnicodeEncodeError as error:
        name = os.fsencode(error.object).decode(errors="backslashreplace")
        raise InputError(f"{name}: this name is not UTF-8; rename the file or folder") from error
