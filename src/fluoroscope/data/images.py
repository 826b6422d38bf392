"""Image files to pixels: `uint8 [H, W]`, 0 is dark and 255 bright."""

from pathlib import Path

import cv2
import numpy as np

from fluoroscope.errors import InputError

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
        return decode(path)
    except UnreadableError as error:
        raise InputError(f"cannot read image {path}: {error}") from error


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


class UnreadableError(Exception):
    """The reason alone: a remembered check must not hold paths, which may name patients."""


def decode(path: str | Path) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableError((error.strerror or str(error)).lower()) from error
    if not len(data):
        raise UnreadableError("the file is empty")
    if _is_truncated(data):
        raise UnreadableError("the file is truncated")
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnreadableError(f"it cannot be decoded ({error.err})") from error
    if pixels is None:
        raise UnreadableError("it is damaged, or no image of a known kind")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UnreadableError("it holds values that are not finite")
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
