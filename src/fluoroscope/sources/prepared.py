"""A resized copy of a collection, made by `scripts/prepare.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from fluoroscope.commands import called
from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import ruled
from fluoroscope.data.study_table import PEOPLE, Collection, Decision, select_labels, study_table
from fluoroscope.errors import InputError, shown
from fluoroscope.sources import existing_root

if TYPE_CHECKING:
    import pandas as pd


def check_roots(key: str, value: Any) -> None:
    """Check `data.root` of prepared copies.

    Raises:
        InputError: the value is neither None nor a directory nor a list of directories.
    """
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if value is not None and not (listed and all(isinstance(name, str) for name in listed)):
        raise InputError(
            f"{key} must be a directory, or a list of directories written '{key}=[A,B]'; got "
            f"{shown(value)}"
        )


@dataclass
class Keys(Data):
    """Keys of `data=prepared`, which can read several copies."""

    root: Any = ruled(check_roots)  # noqa: RUF009


ABOUT, TABLE = "prepared.json", "studies.parquet"
# The entries that are read, and their types; those with None may be null or, with False, missing.
ENTRIES: dict[str, tuple[tuple[type, ...], bool]] = {
    "studies_sha256": ((str,), True),
    "labels": ((list,), True),
    "decisions": ((list,), True),
    "patients_of": ((str, NoneType), True),
    "source": ((str, NoneType), False),
    "label_map": ((dict,), False),
}
VERSION = 1  # of the format of these two files


def check_place(data: Mapping[str, Any]) -> None:
    """Refuse a folder that does not exist or holds no finished copy."""
    roots = data["root"]
    for root in roots if isinstance(roots, list) else [roots]:
        _about(existing_root(root))


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """A copy, with the rows, patients, splits, views and labels of its collection.

    Raises:
        InputError: the folder holds no copy, or the copy is not finished, has another version, or
            has a table that was changed.
    """
    directory = existing_root(root)
    about = _about(directory)
    table = _table(directory, about["studies_sha256"])
    if not {*about["labels"]} <= {*table.columns}:
        raise InputError(
            f"{directory / ABOUT} names labels that {TABLE} lacks; run {called('prepare')} again"
        )
    chosen = select_labels(about["labels"], labels)
    return Collection(
        study_table(
            [directory / name for name in table["path"]],
            table[chosen],
            patients=table["patient"].tolist(),
            splits=_optional(table["split"]),
            views=_optional(table["view"]),
            **_people(table, about["labels"]),
        ),
        directory,
        tuple(Decision(d["policy"], d["counts"]) for d in about["decisions"]),
        about["patients_of"],
        about.get("source"),
        written=True,
    )


def _people(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, list[Any]]:
    """The columns `sex` and `age`, if the copy has them; a label may have the same name."""
    return {name: list(table[name]) for name in PEOPLE if name in table and name not in labels}


def origin(root: str | Path | None) -> tuple[str | None, dict[str, str]]:
    """The source of a copy's collection, and the findings of its labels with their own names."""
    about = _about(existing_root(root))
    given = about.get("label_map", {})
    return about.get("source"), {name: given[name] for name in given if name in about["labels"]}


def _about(directory: Path) -> dict[str, Any]:
    file = directory / ABOUT
    if not file.is_file():
        raise InputError(
            f"data.root: {directory} is not a copy made by fluoroscope (it has no {ABOUT}); "
            "check data.root"
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        finished = about["finished"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {file} ({error}); run {called('prepare')} again") from None
    if not finished:
        raise InputError(
            f"data.root: the copy in {directory} is not finished; run the same {called('prepare')} "
            "command again to continue it"
        )
    if about.get("version") != VERSION:
        raise InputError(
            f"{file} has version {about.get('version')}, but this program reads version {VERSION}; "
            f"run {called('prepare')} again"
        )
    if wrong := _wrong(about):
        raise InputError(f"{file} is damaged (its entry {wrong}); run {called('prepare')} again")
    return about


def _wrong(about: dict[str, Any]) -> str | None:
    """The name of an entry that is missing or of another type."""
    for name, (kinds, needed) in ENTRIES.items():
        if needed > (name in about) or (name in about and not isinstance(about[name], kinds)):
            return name
    if not all(isinstance(label, str) for label in about["labels"]):
        return "labels"
    whole = all(isinstance(d, dict) and _is_decision(d) for d in about["decisions"])
    return None if whole else "decisions"


def _is_decision(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("policy"), str) and isinstance(entry.get("counts"), dict)


def _table(directory: Path, digest: str) -> pd.DataFrame:
    import pandas as pd

    file = directory / TABLE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror}); copy it again") from None
    if sha256(content).hexdigest() != digest:
        raise InputError(
            f"{file} is damaged or was changed (its SHA-256 is not the one in {ABOUT}); run "
            f"{called('prepare')} again, or read a changed table with data=table"
        )
    return pd.read_parquet(BytesIO(content), engine="pyarrow")


def _optional(cells: pd.Series) -> list[str | None]:
    import pandas as pd

    return [None if pd.isna(cell) else str(cell) for cell in cells]
