"""Which images of a copy are done, and whose folder it is: a call that was stopped can go on."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fluoroscope.atomic_write import partial_file, write_atomically
from fluoroscope.errors import InputError
from fluoroscope.prepare.images import NEUTRAL
from fluoroscope.sources.prepared import ABOUT

DONE, LOCK = "copied.csv", ".lock"
AUDIT = ("audit.html", "audit.json")  # may come before a copy
# What all images of one copy share; other keys change its table alone, which is written anew.
OF_IMAGES = ("source", "collection", "size", "format")


class Stamp(NamedTuple):
    """A file as it was when it was copied, and the bytes of its copy."""

    size: int
    mtime_ns: int
    copy_bytes: int

    def line(self, name: str) -> str:
        return f"{name},{self.size},{self.mtime_ns},{self.copy_bytes}\n"


def check_free(out: Path, about: Mapping[str, Any]) -> None:
    """Refuse a folder that holds anything but such a copy, or the beginning of one.

    Raises:
        InputError: it holds something else, or a copy of another kind.
    """
    before = _read(out / ABOUT)
    if before is None:
        mine = {LOCK, *AUDIT, partial_file(out / ABOUT).name}  # a kill may leave the part
        if out.is_dir() and any(file.name not in mine for file in out.iterdir()):
            raise InputError(f"out: {out} holds other things; give a new or an empty folder")
        return
    for key in OF_IMAGES:
        if before.get(key) != about[key]:
            raise InputError(
                f"out: {out} holds a copy {_of_what(key, before, about)}; give another folder, or "
                "remove that copy"
            )


def check_writable(out: Path, about: Mapping[str, Any]) -> None:
    """As `check_free`, and that files can be made there: before a long look at all images."""
    check_free(out, about)
    with _locked(out):
        pass


def _of_what(key: str, before: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    if key == "collection":
        return "of a collection in another place (data.root, or what names a part of it)"
    return f"with {key}={before.get(key)}, not {about[key]}"


def _read(file: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(about, dict)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AssertionError):
        raise InputError(
            f"out: {file} is damaged; if the folder holds a copy, remove it or give another"
        ) from None
    return about


@contextmanager
def claimed(out: Path, about: Mapping[str, Any]) -> Iterator[None]:
    """The folder for this call alone.

    Raises:
        InputError: as `check_free`; it cannot be written; another process is at it.
    """
    check_free(out, about)
    with _locked(out):
        yield


def mark_unfinished(out: Path, about: Mapping[str, Any]) -> None:
    """A copy of this kind that no run may read: before its first image is written or replaced."""
    write_json(out / ABOUT, {**about, "finished": False})


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("w")
    except OSError as error:
        raise InputError(f"out: cannot write to {out} ({error.strerror})") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f"out: another process is writing {out}; wait for it") from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    with write_atomically(file) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def continued(out: Path) -> TextIO:
    """The list of finished images, to be written on; a line that was cut off is ended."""
    file = out / DONE
    log = file.open("a", buffering=1)
    if file.stat().st_size and not file.read_bytes().endswith(b"\n"):
        log.write("\n")
    return log


def read_done(out: Path) -> dict[str, Stamp]:
    """Stamps by the name of the copy; none of a line that was cut off."""
    try:
        lines = (out / DONE).read_text().splitlines()
    except FileNotFoundError:
        return {}
    cells = (line.split(",") for line in lines)
    return {c[0]: Stamp(*map(int, c[1:])) for c in cells if len(c) == 4 and all(c)}


def is_done(out: Path, name: str, source: str, done: Mapping[str, Stamp]) -> bool:
    """Whether the copy is there, whole, and of the source as it is now."""
    if name not in done:
        return False
    try:
        now, copy = os.stat(source), os.stat(out / name)
    except OSError:
        return False
    return done[name] == Stamp(now.st_size, now.st_mtime_ns, copy.st_size)


def remove_unnamed(out: Path, names: Iterable[str]) -> int:
    """Remove the copies listed as done that are none of these; how many there were.

    A line of the list that names anything but a copy removes nothing.
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
