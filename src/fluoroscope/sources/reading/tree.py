"""Every file below a directory: images, files of other programs, and the rest, all counted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeAlias

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".dib", ".tif", ".tiff"),
    *(".dcm", ".dicom", ".npy"),
)
# Kinds under which files that are no images are counted; other names may be those of people.
OTHER_SUFFIXES = (
    *(".csv", ".tsv", ".txt", ".json", ".xml", ".html", ".md", ".pdf", ".xls", ".xlsx", ".doc"),
    *(".docx", ".parquet", ".zip", ".gz", ".tar", ".py", ".ipynb", ".yaml", ".yml", ".log"),
    *(".ini", ".db", ".pkl", ".npz", ".pt", ".h5", ".sh", ".xpt", ".sqlite", ".rar", ".7z"),
)
# Folders of systems, NAS and viewers, and small copies of films.
HELPERS = re.compile(
    r"__macosx|@eadir|[@#]recycle|@recently-snapshot|#snapshot|\$recycle\.bin|lost\+found|"
    r"system volume information|network trash folder|thumb(?:nail)?s?|previews?"
)
_SUFFIXES = re.compile(rf"(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})+$")
_SMALL_COPY = re.compile(r"(?<![a-z])(?:thumb(?:nail)?|preview)s?(?![a-z])")
MAX_FILES = 2_000_000  # a root such as / would take hours

Parts: TypeAlias = tuple[str, ...]  # folders and name of a file below the root


class Tree(NamedTuple):
    """The files below a directory."""

    root: str  # absolute
    images: list[str]  # absolute paths, in the order of their folders and names
    others: dict[str, str]  # the kind of all other files: a suffix, a format, a helper folder
    excluded: dict[str, list[str]]  # absolute paths by pattern of data.exclude

    def parts(self, path: str) -> Parts:
        """The folders and the name of a file below the root.

        >>> Tree("/data", [], {}, {}).parts("/data/train/sick/1.png")
        ('train', 'sick', '1.png')
        """
        return tuple(path[len(self.root) :].strip(os.sep).split(os.sep))


def look_through(
    root: str | Path,
    exclude: Sequence[str] = (),
    follow_links: bool = True,
    most: int | None = None,
) -> Tree:
    """Tell all files below a directory apart; images by their suffix or else by their first bytes.

    Args:
        root: the directory.
        exclude: patterns such as `masks` or `*_mask.png`, compared in lower case with the name of
            each file and folder and with its path below the root.
        follow_links: whether links may lead out of the root.
        most: stop after so many files; None reads all, and refuses folders that cannot be opened.

    Raises:
        OSError: a folder cannot be opened.
    """
    from fluoroscope.files.file_kinds import IMAGE

    tree = Tree(os.path.abspath(root), [], {}, {pattern: [] for pattern in exclude})
    files = _walk(tree.root, follow_links, most is not None)
    for seen, (path, name, helper) in enumerate(files, start=1):
        if pattern := _excluding(tree.parts(path), exclude) if exclude else None:
            tree.excluded[pattern].append(path)
        elif (kind := helper or _helper(name) or _kind(path, name)) == IMAGE:
            tree.images.append(path)
        else:
            tree.others[path] = kind
        if seen == most:
            tree.others[""] = f"and all files after the first {most:,}"
            break
    tree.images.sort(key=lambda path: path.split(os.sep))
    return tree


def film_key(name: str) -> str:
    """A name or path without suffix and case: these are one film.

    >>> {film_key(name) for name in ("a.png", "A.PNG", "a.dcm.dcm", "a")}
    {'a'}
    """
    return _SUFFIXES.sub("", name.casefold())


def _walk(root: str, follow_links: bool, skip_closed: bool) -> Iterator[tuple[str, str, str]]:
    """Path, name and helper ("" for none) of each file; links are not walked in circles."""
    waiting: list[tuple[str, tuple[str, ...], str]] = [(root, (os.path.realpath(root),), "")]
    while waiting:
        folder, chain, helper = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError:
            if not (skip_closed or helper):
                raise
            yield folder, "", helper or "folders that cannot be opened"
            continue
        for entry in found:
            if not entry.is_dir():
                yield entry.path, entry.name, helper
                continue
            linked = entry.is_symlink()
            home = os.path.realpath(entry.path) if linked else os.path.join(chain[-1], entry.name)
            if home not in chain and (follow_links or home.startswith(chain[0] + os.sep)):
                waiting.append((entry.path, (*chain, home), helper or _helper(entry.name)))


def _helper(name: str) -> str:
    """The helper that a file or folder belongs to; "" for none."""
    lower = name.lower()
    if HELPERS.fullmatch(lower):
        return lower
    if name.startswith("."):
        return "hidden"
    return "small copies" if _SMALL_COPY.search(lower) else ""


def _kind(path: str, name: str) -> str:
    """`IMAGE`, the name of a format that is not read, a suffix, or "other files"."""
    from fluoroscope.files.file_kinds import HEAD_BYTES, IMAGE, kind_of

    suffix = os.path.splitext(name.lower())[1]
    if suffix in IMAGE_SUFFIXES:
        return IMAGE
    if name.lower() == "dicomdir":  # a table of contents in DICOM's format
        return "dicomdir"
    other = suffix[1:] if suffix in OTHER_SUFFIXES else ""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for its writer
            return "broken links, pipes and devices"
        with open(path, "rb", buffering=0) as file:
            kind = kind_of(file.read(HEAD_BYTES))
        return IMAGE if kind == IMAGE else other or kind or "other files"
    except OSError:
        return "files that cannot be opened"


def _excluding(parts: Parts, exclude: Sequence[str]) -> str | None:
    """The first pattern that the file, or a folder above it, matches."""
    names = [name.lower() for name in parts]
    paths = ["/".join(names[:end]) for end in range(2, len(names) + 1)]
    tried = [*names, *paths]
    return next((p for p in exclude if any(fnmatchcase(t, p.lower()) for t in tried)), None)
