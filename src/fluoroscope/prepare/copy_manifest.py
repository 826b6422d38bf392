"""The state of a copy: finished images, and the folder's owner; an interrupted copy can resume."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fluoroscope.atomic_write import only_writer, partial_file, write_atomically
from fluoroscope.errors import InputError
from fluoroscope.prepare.image_copy import NEUTRAL
from fluoroscope.sources.prepared import ABOUT

DONE, LOCK = "copied.csv", ".lock"
AUDIT = ("audit.html", "audit.json", "audit.csv")  # may be written before a copy
# Shared by all images of a copy; the other keys affect only the table, which is written anew.
IMAGE_KEYS = ("source", "collection", "size", "format")


class Stamp(NamedTuple):
    """Size and time of an original when it was copied, and the size of its copy in bytes."""

    size: int
    mtime_ns: int
    copy_bytes: int

    def line(self, name: str) -> str:
        return f"{name},{self.size},{self.mtime_ns},{self.copy_bytes}\n"


def check_free(out: Path, about: Mapping[str, Any]) -> None:
    """Refuse a folder that holds anything but a copy of this kind, finished or not.

    Raises:
        InputError: it holds other files, or a copy of another kind.
    """
    before = _read(out / ABOUT)
    if before is None:
        mine = {LOCK, *AUDIT, partial_file(out / ABOUT).name}  # left by a process that was killed
        if out.is_dir() and any(file.name not in mine for file in out.iterdir()):
            raise InputError(f"out: {out} holds other files; choose a new or an empty folder")
        return
    for key in IMAGE_KEYS:
        if before.get(key) != about[key]:
            raise InputError(
                f"out: {out} holds a copy {_difference(key, before, about)}; choose another "
                "folder, or remove that copy"
            )


def check_writable(out: Path, about: Mapping[str, Any]) -> None:
    """`check_free`, and check that the folder can be written, before all images are read."""
    check_free(out, about)
    with _locked(out):
        pass


def _difference(key: str, before: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    if key == "collection":
        return "of a collection in another place (another data.root, or another part of it)"
    return f"with {key}={before.get(key)}, not {about[key]}"


def _read(file: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(about, dict)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AssertionError):
        raise InputError(
            f"out: {file} is damaged; remove the copy, or choose another folder"
        ) from None
    return about


@contextmanager
def locked_copy(out: Path, about: Mapping[str, Any]) -> Iterator[None]:
    """Lock the folder for this process.

    Raises:
        InputError: as `check_free`; the folder cannot be written; another process writes to it.
    """
    check_free(out, about)
    with _locked(out):
        yield


def mark_unfinished(out: Path, about: Mapping[str, Any]) -> None:
    """Mark the copy as unfinished, so that no run reads it, before any image is written."""
    write_json(out / ABOUT, {**about, "finished": False})


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    stack = ExitStack()
    refusal = f"out: another process is writing to {out}; wait for it"
    try:
        out.mkdir(parents=True, exist_ok=True)
        stack.enter_context(only_writer(out / LOCK, refusal))
    except OSError as error:
        raise InputError(f"out: cannot write to {out} ({error.strerror})") from None
    with stack:
        yield


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    with write_atomically(file) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def open_list(out: Path) -> TextIO:
    """Open the list of finished images to append to it; an incomplete last line is ended."""
    file = out / DONE
    log = file.open("a", buffering=1)
    if file.stat().st_size and not file.read_bytes().endswith(b"\n"):
        log.write("\n")
    return log


def read_done(out: Path) -> dict[str, Stamp]:
    """Stamps by the name of the copy; incomplete lines are left out."""
    try:
        lines = (out / DONE).read_text().splitlines()
    except FileNotFoundError:
        return {}
    cells = (line.split(",") for line in lines)
    return {c[0]: Stamp(*map(int, c[1:])) for c in cells if len(c) == 4 and all(c)}


def is_done(out: Path, name: str, source: str, done: Mapping[str, Stamp]) -> bool:
    """Whether the copy exists, is complete, and the source has not changed since."""
    if name not in done:
        return False
    try:
        now, copy = os.stat(source), os.stat(out / name)
    except OSError:
        return False
    return done[name] == Stamp(now.st_size, now.st_mtime_ns, copy.st_size)


def remove_unnamed(out: Path, names: Iterable[str]) -> int:
    """Remove the finished copies that are not among the names, and return their number.

    A line of the list that does not name a copy removes nothing.
    """
    done, removed = read_done(out), 0
    unnamed = {name for name in done.keys() - set(names) if NEUTRAL.fullmatch(name)}
    for name in unnamed:
        with suppress(FileNotFoundError):
            (out / name).unlink()
            removed += 1
    if unnamed:
        with write_atomically(out / DONE) as part:
            part.write_text("".join(done[name].line(name) for name in done if name not in unnamed))
    return removed
