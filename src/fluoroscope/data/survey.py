"""Which images can be used: every one is decoded once, and the result remembered."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import track

from fluoroscope.data.images import UnreadableError, decode
from fluoroscope.errors import InputError, check_choice


def user_cache() -> Path | None:
    """Where this user's programs keep what they can compute again; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "fluoroscope"
    except RuntimeError:  # a container's user may have no home
        return None


def check_images(
    paths: Sequence[str | Path],
    on_unreadable: str = "stop",
    workers: int | None = None,
    cache_dir: str | Path | None = None,
    description: str = "checking images",
) -> list[int]:
    """Indices of the images that cannot be used: unreadable, or the same value everywhere.

    Decodes every image once; the result is remembered until a path, size or time of change differs.
    What cannot be remembered (a folder that is not writable, a damaged file) is decoded each time.

    Args:
        paths: image files.
        on_unreadable: "stop" refuses such images, "skip" returns them.
        workers: threads; None takes the number that suits the machine.
        cache_dir: directory of the remembered results; None remembers nothing.
        description: text beside the progress bar, which only a terminal shows.

    Raises:
        InputError: with "stop", or if none can be used: how many cannot, and the first three with
            the reason.
    """
    check_choice("data.on_unreadable", on_unreadable, ["skip", "stop"])
    cache = None if cache_dir is None else Path(cache_dir) / f"{_fingerprint_files(paths)}.json"
    reasons = None if cache is None else _remembered(cache, len(paths))
    if reasons is None:
        reasons = _find_unusable(paths, workers, description)
        if cache is not None:
            _remember(cache, reasons)
    if reasons and (on_unreadable == "stop" or len(reasons) == len(paths)):
        first = "; ".join(f"{paths[i]} ({reason})" for i, reason in list(reasons.items())[:3])
        advice = (
            "no usable images are left; check data.root"
            if len(reasons) == len(paths)
            else "repair them, or leave them out with data.on_unreadable=skip"
        )
        raise InputError(f"{len(reasons)} of {len(paths)} images cannot be used: {first}; {advice}")
    return list(reasons)


def _find_unusable(
    paths: Sequence[str | Path], workers: int | None, description: str
) -> dict[int, str]:
    console = Console(stderr=True)
    with ThreadPoolExecutor(workers) as pool:
        reasons = track(
            pool.map(_reason_unusable, paths),
            description=description,
            total=len(paths),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        return {index: reason for index, reason in enumerate(reasons) if reason}


def _reason_unusable(path: str | Path) -> str:
    try:
        pixels = decode(path)
    except UnreadableError as error:
        return str(error)
    return f"every pixel is {pixels[0, 0]}" if pixels.min() == pixels.max() else ""


def _fingerprint_files(paths: Sequence[str | Path]) -> str:
    """16 hex digits of paths, sizes and times of change, and of what reads them."""
    lines = [f"OpenCV {cv2.__version__}"]
    for path in paths:
        try:
            found = os.stat(path)
            lines.append(f"{path}\t{found.st_size}\t{found.st_mtime_ns}")
        except OSError:
            lines.append(f"{path}\tmissing")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _remembered(file: Path, images: int) -> dict[int, str] | None:
    """Reasons by index; None where there is no file, or not one that can be used."""
    try:
        reasons = {int(i): str(reason) for i, reason in json.loads(file.read_text()).items()}
    except (OSError, ValueError, AttributeError):  # no file, no JSON, no object
        return None
    return reasons if all(0 <= index < images for index in reasons) else None


def _remember(file: Path, reasons: dict[int, str]) -> None:
    # Another process may read or write it at the same time: it sees the old file or the new one.
    part = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):  # a cache saves time; without one a run is slower, not wrong
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(reasons))
        part.replace(file)
