"""Find a table that the user names, and name others if it does not exist."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from fluoroscope.data.study_table import first_three
from fluoroscope.errors import InputError

FEW_FOLDERS = 50  # below a root; more are folders of patients
TABLES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz", ".zip")


def find_csv(directory: Path | None, csv: str | Path | None, key: str) -> Path:
    """The path of a CSV that is relative to `directory`, or else to the working directory.

    Args:
        key: the key of the configuration that names the CSV.

    Raises:
        InputError: if `csv` is not set, or the file does not exist; names the nearest that do.
    """
    if not csv:
        raise InputError(f"{key} is not set; add {key}=FILE.csv")
    given = Path(csv).expanduser().absolute()
    candidates = [given] if directory is None else [directory / Path(csv).expanduser(), given]
    for file in candidates:
        if file.is_file():
            return file
    tried = " or ".join(dict.fromkeys(str(file) for file in candidates))
    near = next(filter(None, map(near_tables, candidates)), "")
    raise InputError(f"{key}: there is no file {tried}{near}")


def near_tables(missing: Path) -> str:
    """` (did you mean 'studies.csv'?)`, or other tables near a file that does not exist, or "".

    Names of other files are not read, since those of films may be names of patients.
    """
    folder = missing.parent if missing.parent.is_dir() else missing.parent.parent
    places = [folder, *islice(_listed(folder, os.DirEntry.is_dir), FEW_FOLDERS)]
    below = [
        f for place in places for f in _listed(place, lambda e: e.name.lower().endswith(TABLES))
    ]
    shown = {file.name.lower(): str(file.relative_to(folder)) for file in reversed(below)}
    if close := get_close_matches(missing.name.lower(), shown, n=3):
        return f" (did you mean {' or '.join(repr(shown[name]) for name in close)}?)"
    return f" (there are {first_three(sorted(shown.values()))})" if shown else ""


def _listed(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                folder / e.name for e in entries if not e.name.startswith(".") and wanted(e)
            )
    except OSError:
        return []
