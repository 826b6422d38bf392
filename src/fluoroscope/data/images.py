"""Image files to pixels: `uint8 [H, W]`, 0 is dark and 255 bright."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from fluoroscope.errors import InputError, check_choice

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
END_MARKERS = {PNG_START: b"IEND", JPEG_START: b"\xff\xd9"}
TAIL_BYTES = 1024  # some writers pad a file behind its end marker


def read_image(path: str | Path) -> np.ndarray:
    """Gray pixels of an image file, uint8 [H, W].

    Eight-bit files stay as they are; deeper ones are scaled by their own range, so a 16-bit file
    that holds 12-bit values keeps its contrast. Colour becomes luma, alpha is dropped.

    Raises:
        InputError: `cannot read image PATH: REASON`, for a missing, empty, truncated or other file.
    """
    try:
        return _decode(path)
    except _UnreadableError as error:
        raise InputError(f"cannot read image {path}: {error}") from error


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


def fit_square(image: np.ndarray, size_px: int) -> np.ndarray:
    """Image scaled to fit a square and centred on black, uint8 [H, W] to [size_px, size_px]."""
    longest = max(image.shape)
    height, width = (max(1, round(side * size_px / longest)) for side in image.shape)
    if (height, width) != image.shape:
        method = cv2.INTER_AREA if longest > size_px else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=method)
    if height == width:
        return image
    square = np.zeros((size_px, size_px), np.uint8)
    top, left = (size_px - height) // 2, (size_px - width) // 2
    square[top : top + height, left : left + width] = image
    return square


class _UnreadableError(Exception):
    """The reason alone: a remembered check must not hold paths, which may name patients."""


def _decode(path: str | Path) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise _UnreadableError((error.strerror or str(error)).lower()) from error
    if not len(data):
        raise _UnreadableError("the file is empty")
    if _is_truncated(data):
        raise _UnreadableError("the file is truncated")
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _UnreadableError(f"it cannot be decoded ({error.err})") from error
    if pixels is None:
        raise _UnreadableError("it is damaged, or no image of a known kind")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise _UnreadableError("it holds values that are not finite")
    return _scale_range(_drop_colour(pixels))


def _is_truncated(data: np.ndarray) -> bool:
    # OpenCV 4 returns a half-gray picture for a truncated file instead of an error.
    start, tail = data[:8].tobytes(), data[-TAIL_BYTES:].tobytes()
    return any(start.startswith(kind) and end not in tail for kind, end in END_MARKERS.items())


def _drop_colour(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        pixels = pixels.astype(np.float32)
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2GRAY)


def _scale_range(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint((pixels.astype(np.float64) - low) * scale).astype(np.uint8)


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
        pixels = _decode(path)
    except _UnreadableError as error:
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
