"""Find the tables, lists and films of a collection, and read the columns they need."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from fnmatch import translate
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.csv_cells import require_column
from fluoroscope.sources.reading.csv_files import read_csv, read_header
from fluoroscope.sources.reading.named_tables import near_tables

if TYPE_CHECKING:
    import pandas as pd


NAMED = 4  # known names that an error lists
PACKED = ("", ".gz", ".zip")
# How far another root is looked for: PhysioNet's download lies four folders deep.
LEVELS_BELOW, LEVELS_ABOVE, FOLDERS_EACH, FOLDERS_A_LEVEL = 4, 2, 30, 300
NOT_FILMS = ("__MACOSX",)


def find_file(root: Path, names: Sequence[str]) -> Path:
    """The first of `names` that exists below `root`, in any case, plain or packed (gzip, zip).

    Raises:
        InputError: if none exists; suggests another root if a file exists some levels up or down.
    """
    if found := optional_file(root, names):
        return found
    wanted = " or ".join(names[:NAMED])
    for directory in _near(root):
        if found := optional_file(directory, names):
            raise InputError(
                f"data.root: {root} holds no {wanted}, but there is {found}; "
                f"set data.root={directory}"
            )
    near = next(filter(None, (near_tables(root / name) for name in names)), "")
    raise InputError(
        f"data.root: {root} holds no {wanted}{near}; check data.root "
        "(data/README.md shows the expected tree)"
    )


def optional_file(
    root: Path, names: Sequence[str], suffixes: Sequence[str] = PACKED
) -> Path | None:
    """As `find_file`; None if none exists."""
    files = [root / f"{name}{suffix}" for name in names for suffix in suffixes]
    # os.path.isfile returns False for a folder without permission, such as a disk's lost+found.
    exact = next((file for file in files if os.path.isfile(file)), None)
    return exact or next(_in_other_case(files), None)


def find_folder(root: Path, fits: Callable[[Path], bool], what: str, otherwise: str) -> Path:
    """`root` if it fits, or the only folder that fits among the nearest ones below it.

    Args:
        root: data.root.
        fits: whether a folder is that of the collection.
        what: the folders that `root` should have, for the error message.
        otherwise: advice if no folder fits.

    Raises:
        InputError: if none fits, or several at the same depth; names them, or a fitting one above.
    """
    for level in ([root], *_levels_below(root)):
        found = [folder for folder in level if folder.name not in NOT_FILMS and fits(folder)]
        if len(found) > 1:
            raise InputError(
                f"data.root: {root} holds {len(found)} copies of the collection: "
                f"{' and '.join(map(str, found[:3]))}; set data.root to one of them"
            )
        if found:
            return found[0]
    above = next(filter(fits, _levels_above(root)), None)
    advice = f"set data.root={above}" if above else otherwise
    raise InputError(f"data.root: {root} lacks {what}; {advice}")


def optional_list(root: Path, names: Sequence[str]) -> Path | None:
    """A list, which is not packed, in `root` or in a folder of it; None if none exists."""
    folders = [root, *_folders(root)]
    found = (optional_file(folder, names, [""]) for folder in folders if _is_open(folder))
    return next(filter(None, found), None)


def unused_files(
    root: Path, official: Sequence[str], used: Collection[Path | None]
) -> tuple[Decision, ...]:
    """Name the official tables and lists that are not read, in `root` and in its folders.

    Args:
        root: directory of the collection.
        official: patterns of their names, in lower case, such as "*test*list*". A file of another
            name is not named, because it may be private.
        used: files that are read.
    """
    match = re.compile("|".join(map(translate, official))).match
    folders = filter(_is_open, [root, *_folders(root)])
    there = (folder / name for folder in folders for name in sorted(os.listdir(folder)))
    found = [file for file in there if match(file.name.lower()) and file.is_file()]
    unread = [file.name for file in found if file not in used]
    policy = f"official files that are not used: {', '.join(unread)}"
    return (Decision(policy, {"files": len(unread)}),) if unread else ()


def find_films(
    names: Sequence[str], folders: Sequence[Path], listed: dict[Path, set[str]] | None = None
) -> list[str]:
    """The path of each image in the first of the folders that has it.

    An image that is in none gets a path in the first folder that exists, the last one excepted.

    Args:
        names: file names.
        folders: directories, which need not exist; the last is that of the table.
        listed: their content, which is completed; for several calls with the same folders.
    """
    listed = {} if listed is None else listed
    here = [folder for folder in folders if folder in listed or folder.is_dir()]
    for folder in here:
        listed[folder] = listed.get(folder) or {*os.listdir(folder)}
    places = [(f"{folder}{os.sep}", listed[folder]) for folder in here]
    missing = f"{next((f for f in here if f != folders[-1]), folders[0])}{os.sep}"
    return [
        next((place + name for place, there in places if name in there), missing + name)
        for name in names
    ]


def read_columns(
    file: Path, columns: Sequence[str], source: str, optional: Sequence[str] = ()
) -> pd.DataFrame:
    """As `read_csv`; of the optional columns those that the file has.

    Raises:
        InputError: also for a column that the file lacks.
    """
    header = read_header(file)
    for column in columns:
        require_column(header, column, f"data={source}", file)
    return read_csv(file, [*columns, *optional])


def _in_other_case(files: Sequence[Path]) -> Iterator[Path]:
    for file in files:
        with suppress(OSError):
            names = sorted(os.listdir(file.parent))
            yield from (file.with_name(n) for n in names if n.lower() == file.name.lower())


def _near(root: Path) -> Iterator[Path]:
    """Folders above `root`, then those below it, the nearest first."""
    yield from _levels_above(root)
    for level in _levels_below(root):
        yield from level


def _levels_above(root: Path) -> Sequence[Path]:
    return root.parents[:LEVELS_ABOVE]


def _levels_below(root: Path) -> Iterator[list[Path]]:
    """The folders at each depth. Only some of each folder, as there may be 60,000 patients."""
    level = _folders(root)
    for _ in range(LEVELS_BELOW):
        yield level
        nested = (below for folder in level for below in _folders_if_open(folder))
        level = list(islice(nested, FOLDERS_A_LEVEL))


def _folders(directory: Path) -> list[Path]:
    # os.path.isdir returns False for a folder without permission, too.
    folders = (entry for entry in sorted(directory.iterdir()) if os.path.isdir(entry))
    return list(islice(folders, FOLDERS_EACH))


def _folders_if_open(directory: Path) -> list[Path]:
    with suppress(OSError):
        return _folders(directory)
    return []


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)
