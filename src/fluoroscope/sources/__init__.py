"""Public data sets as study tables: each module of this package is a source.

A source's module declares `Keys`, a subclass of `Data` with the source's keys, and
`read(root, labels, **keys)`, which returns a `Collection`. It imports pandas and other heavy
libraries inside functions, because the configuration reads `Keys` first. To add a source, add a
module here and a file in `conf/data` with the defaults of its keys; nothing else lists the sources.
If it spells findings in its own way, add the spellings to `findings`, which is no source. A source
of the user's own is one module of their package, whose `Keys` have defaults: see docs/extend.md.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import check_value
from fluoroscope.errors import InputError, check_choice, nearest

READING = ("source", "root", "labels", "label_map", "views", "on_missing", "follow_links")
TABLES = ("findings",)  # modules of this package that are no sources

if TYPE_CHECKING:
    from fluoroscope.data.study_table import Collection


def names() -> list[str]:
    """The names of all sources: the modules of this package, but not its subpackages."""
    modules = {module.name for module in iter_modules(__path__) if not module.ispkg}
    return sorted(modules.difference(TABLES))


def keys_of(source: str) -> type[Data]:
    """The keys of a source, without importing anything heavy.

    Raises:
        InputError: an unknown source.
    """
    keys: type[Data] = module_of(source).Keys
    return keys


def module_of(source: str) -> Any:
    """The module of a source; of the user's own package, if the name is an import path.

    Raises:
        InputError: an unknown source, and see `reading.own_source`.
    """
    if "." in source:
        return import_module(f"{__name__}.reading.own_source").own_source(source)
    check_choice("data.source", source, names())
    return import_module(f"{__name__}.{source}")


def load(
    source: str,
    root: str | Path | Sequence[str] | None,
    labels: Sequence[str] | None = None,
    views: Sequence[str] | None = None,
    on_missing: str = "stop",
    follow_links: bool = False,
    label_map: Mapping[str, str] | None = None,
    **options: object,
) -> "Collection":
    """Read the studies of a source, and check that each image exists below the root, once.

    All other files below the root are counted; see `reading.account`.

    Args:
        source: one of `names()`.
        root: directory of the data set; a list of them for prepared copies.
        labels: findings in the wanted order, in any spelling; None means the source's default.
        views: view positions to keep, such as PA; None keeps all.
        on_missing: "stop" raises an error if an image is not on disk, "skip" leaves it out.
        follow_links: whether links may point outside the root.
        label_map: the finding of each label that has a name of its own, see `sources.findings`.
        options: further arguments of the source's `read`.

    Raises:
        InputError: for an unknown source, label or view; for missing or repeated images, or none;
            for files that cannot be read, and file names that are not UTF-8.
    """
    from fluoroscope.data.study_table import check_files, keep_views
    from fluoroscope.sources.reading.account import account

    module = module_of(source)
    if not isinstance(root, str | Path | None):
        from fluoroscope.sources.reading.several import load_several

        keys = {"on_missing": on_missing, "follow_links": follow_links}
        return load_several(source, root, labels, views, label_map or {}, **keys)
    for name, declared in keys_of(source).__dataclass_fields__.items():
        if name in options:
            check_value(f"data.{name}", options[name], declared)
    with _usable(source, root):
        read = partial(module.read, root=root, **options)
        collection = _read(read, labels, source, root, label_map or {})
        for path in collection.table["path"]:  # pandas 2 accepts any name
            path.encode()
        if len(collection.table):
            collection = account(collection, root, follow_links)
    if collection.patients_of is None:
        collection = collection._replace(patients_of=source)
    if len(collection.table) and views is not None:
        collection = keep_views(collection, views)
    if collection.table.empty:
        raise InputError(f"data={source} found no images in {root}; check data.root")
    return check_files(_checked_patients(collection), on_missing, follow_links)


def _checked_patients(collection: "Collection") -> "Collection":
    """Refuse a patient who may be anyone, and count those who may be one, such as P01 and p01."""
    from fluoroscope.data.study_table import NOBODY, Decision
    from fluoroscope.sources.reading.ids import ANYONE, LEADING_ZEROS, PERHAPS_ONE

    patients = collection.table["patient"].astype(object)
    if collection.patients_of == NOBODY:
        return collection
    for name in filter(ANYONE.fullmatch, patients):
        raise InputError(
            f"{patients.eq(name).sum()} of {len(patients)} images have the patient {name!r}, who "
            "may be anyone; correct how patients are identified"
        )
    forms = patients.drop_duplicates().str.normalize("NFKC").str.casefold()
    forms = forms.replace({r"[\s_-]+": "-", LEADING_ZEROS: ""}, regex=True)
    counts = {"patients": int(forms.duplicated(keep=False).sum())}
    said = [Decision(PERHAPS_ONE, counts)] if counts["patients"] else []
    return collection._replace(decisions=(*collection.decisions, *said))


def _read(
    read: "Callable[..., Collection]",
    labels: Sequence[str] | None,
    source: str,
    root: Any,
    label_map: Mapping[str, str],
) -> "Collection":
    """Read with the labels as they are; if the source does not know them, in its spelling."""
    from fluoroscope.data.study_table import UnknownLabelError

    refusal = None
    if not label_map:
        try:
            return read(labels=labels)
        except UnknownLabelError as unknown:
            refusal = unknown
    from fluoroscope.sources.reading.spelling import origin_of, read_spelled

    return read_spelled(read, labels, refusal, *origin_of(source, root, label_map))


def load_section(data: Mapping[str, Any]) -> "Collection":
    """`load` with the data section of a configuration; keys of splits and batches are ignored."""
    common = Data.__dataclass_fields__
    return load(**{k: v for k, v in data.items() if k in READING or k not in common})


def given_root(root: str | Path | None) -> Path:
    """The absolute path of `data.root`, which may not exist yet.

    Raises:
        InputError: `data.root` is not set.
    """
    if not root:
        raise InputError("data.root is not set; add data.root=DIR, the data set's directory")
    return Path(root).expanduser().absolute()


def existing_root(root: str | Path | None) -> Path:
    """The absolute path of `data.root`.

    Raises:
        InputError: `data.root` is not set, or is not a directory.
    """
    directory = given_root(root)
    if not directory.is_dir():
        beside = [path.name for path in directory.parent.glob("*") if path.is_dir()]
        near = nearest(directory.name, beside)
        raise InputError(f"data.root: there is no directory {directory}{near}")
    return directory


def check_place(data: Mapping[str, Any]) -> None:
    """Refuse a data set whose folder does not exist, without reading anything or importing pandas.

    A source whose keys name other places declares `check_place(data)` in its module.

    Args:
        data: the data section of a configuration.

    Raises:
        InputError: as `load` would.
    """
    own = getattr(module_of(data["source"]), "check_place", None)
    if own is not None:
        own(data)
    else:
        existing_root(data["root"])


@contextmanager
def _usable(source: str, root: str | Path | None) -> Iterator[None]:
    """Turn errors of the file system, and file names that are not UTF-8, into an `InputError`."""
    try:
        yield
    except OSError as error:
        where, reason = error.filename or root, error.strerror or error
        raise InputError(
            f"data={source} cannot use {where}: {reason}; check data.root and its permissions"
        ) from error
    except UnicodeEncodeError as error:
        name = os.fsencode(error.object).decode(errors="backslashreplace")
        raise InputError(f"{name}: the name is not UTF-8; rename the file or folder") from error
