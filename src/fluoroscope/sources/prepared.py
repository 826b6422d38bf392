"""A resized copy that `scripts/prepare.py` has made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoroscope.config.data_keys import Data
from fluoroscope.data.study_table import Collection, Decision, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root

if TYPE_CHECKING:
    import pandas as pd


Keys = Data


ABOUT, TABLE = "prepared.json", "studies.parquet"
VERSION = 1  # of what these two files hold


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """A copy, with the rows, patients, splits, views and labels of its collection.

    Raises:
        InputError: the folder holds no copy, one that is not finished or made by another version,
            or a table that is not the one it was finished with.
    """
    directory = existing_root(root)
    about = _about(directory)
    table = _table(directory, about["studies_sha256"])
    chosen = select_labels(about["labels"], labels)
    return Collection(
        study_table(
            [directory / name for name in table["path"]],
            table[chosen],
            patients=table["patient"].tolist(),
            splits=_optional(table["split"]),
            views=_optional(table["view"]),
        ),
        directory,
        tuple(Decision(d["policy"], d["counts"]) for d in about["decisions"]),
        about["patients_of"],
        about.get("source"),
    )


def _about(directory: Path) -> dict[str, Any]:
    file = directory / ABOUT
    if not file.is_file():
        raise InputError(
            f"data.root: {directory} holds no copy that scripts/prepare.py made (no {ABOUT})"
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        finished = about["finished"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {file} ({error}); call scripts/prepare.py again") from None
    if not finished:
        raise InputError(
            f"data.root: the copy in {directory} is not finished; run the same command of "
            "scripts/prepare.py again to continue it"
        )
    if about["version"] != VERSION:
        raise InputError(
            f"{file} is of version {about['version']}, this program reads {VERSION}; make the copy "
            "again"
        )
    return about


def _table(directory: Path, digest: str) -> pd.DataFrame:
    import pandas as pd

    file = directory / TABLE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror}); copy it again") from None
    if sha256(content).hexdigest() != digest:
        raise InputError(
            f"{file} is not the table that {ABOUT} was written for (its SHA-256 differs): it is "
            "damaged or was changed; call scripts/prepare.py again, or read a table of your own "
            "with data=table"
        )
    return pd.read_parquet(BytesIO(content), engine="pyarrow")


def _optional(cells: pd.Series) -> list[str | None]:
    import pandas as pd

    return [None if pd.isna(cell) else str(cell) for cell in cells]
