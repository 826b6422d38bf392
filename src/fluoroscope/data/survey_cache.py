"""Cache of the measures of image files, in the user's cache directory; it holds no paths."""

import fcntl
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fluoroscope.atomic_write import write_atomically
from fluoroscope.data.image_stats import MEASURES

# Increase it when `images.decode` returns other pixels or `image_stats.measure` other numbers.
VERSION = 4
DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, TypeError),  # TypeError: an array, not an archive
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)


class Remembered:
    """Cached measures of the files in one folder, for their latest size and modification time.

    Args:
        cache_dir: directory of the cache; if it cannot be used, all files are measured again.
        files: paths of the files.
    """

    def __init__(self, cache_dir: str | Path, files: Sequence[str]) -> None:
        folder = os.path.commonpath({os.path.dirname(os.path.abspath(file)) for file in files})
        self.file = Path(cache_dir) / f"survey-{_number(folder) % 2**64:016x}.npz"
        self.names = np.array([_number(file) for file in files], np.int64)
        decoders = [version(name) for name in ("pydicom", "imagecodecs", "pillow")]
        reader = " ".join([str(VERSION), cv2.__version__, *decoders])
        self.stamps = np.array([_stamp(file, reader) for file in files], np.int64)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process measures these files, if the file system supports locks."""
        with ExitStack() as stack:
            with suppress(OSError):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(self.file.with_suffix(".lock").open("w"))
                fcntl.lockf(lock, fcntl.LOCK_EX)
            yield

    def recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Measures [N] of the files, and which of them are cached and still valid, bool [N]."""
        names, stamps, measures = self._read()
        order = np.argsort(names, kind="stable")
        place = np.searchsorted(names, self.names, sorter=order)
        known = place < len(names)
        found = order[place[known]]
        rows = np.zeros(len(self.names), MEASURES)
        rows[known] = measures[found]
        known[known] = (names[found] == self.names[known]) & (stamps[found] == self.stamps[known])
        return rows, known

    def keep(self, rows: np.ndarray, known: np.ndarray) -> None:
        """Store the known rows; stored measures of other files are kept."""
        names, stamps, measures = self._read()
        others = ~np.isin(names, self.names)
        with suppress(OSError):  # a cache saves time; without one a run is slower, not wrong
            self._write(
                names=np.concatenate([names[others], self.names[known]]),
                stamps=np.concatenate([stamps[others], self.stamps[known]]),
                measures=np.concatenate([measures[others], rows[known]]),
            )

    def _read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with suppress(*DAMAGED), np.load(self.file, allow_pickle=False) as stored:
            names, stamps, measures = (stored[key] for key in ("names", "stamps", "measures"))
            if _fit(names, stamps, measures):
                return names, stamps, measures
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, MEASURES)

    def _write(self, **arrays: Any) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.file, shared=True) as part, part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)


def _fit(names: np.ndarray, stamps: np.ndarray, measures: np.ndarray) -> bool:
    kinds = names.dtype == stamps.dtype == np.int64 and measures.dtype == MEASURES
    return kinds and names.ndim == 1 and names.shape == stamps.shape == measures.shape


def _number(text: str) -> int:
    digest = hashlib.sha256(os.fsencode(text)).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _stamp(file: str, reader: str) -> int:
    """A number that changes with the file, and with the versions that read and measure it."""
    try:
        found = os.stat(file)
        state = f"{found.st_size} {found.st_mtime_ns}"
    except OSError:
        state = "missing"
    return _number(f"{reader} {state}")
