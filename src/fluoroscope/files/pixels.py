"""Shared by all file formats: the error, the limit on size, and the scaling to eight bits."""

from typing import NamedTuple

import cv2
import numpy as np

MAX_PIXELS = 100_000_000  # ten large films; a header of a few bytes can claim any size
MAX_BYTES = 2**28  # of a file, deflated or inflated: room for MAX_PIXELS of 16 bits


# OpenCV's messages do not name the file; the errors raised here lead to one that does.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Film(NamedTuple):
    """A decoded image file."""

    pixels: np.ndarray  # uint8 [H, W], 0 is dark
    orientation: int = 1  # the tag by which it was turned or mirrored; 1: it was not


class UnreadableError(Exception):
    """The reason without the path: reasons are cached, and a path may name a patient."""


def check_size(width: int, height: int) -> None:
    """Refuse a size that a header claims, before memory is allocated for it.

    Raises:
        UnreadableError: for no pixels at all and for more than `MAX_PIXELS`.
    """
    if width < 1 or height < 1:
        raise UnreadableError(f"the image has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise UnreadableError(
            f"its {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million"
        )


def luma(colour: np.ndarray, order: int = cv2.COLOR_RGB2GRAY) -> np.ndarray:
    """Brightness of colours, [H, W, 3 or 4] to [H, W]; alpha is dropped.

    Source: ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B.
    """
    if colour.dtype not in (np.uint8, np.uint16, np.float32):
        colour = colour.astype(np.float32)
    return cv2.cvtColor(np.ascontiguousarray(colour[..., :3]), order)


def scale_range(pixels: np.ndarray) -> np.ndarray:
    """Pixels as uint8: 8-bit pixels unchanged, deeper ones scaled from their range to 0 ... 255.

    Raises:
        UnreadableError: for values that are not finite.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:  # a table look-up costs a tenth of the arithmetic
        return _to_bytes(np.arange(2**16), *_range(pixels))[pixels]
    return _to_bytes(pixels, *_range(pixels))


def _range(pixels: np.ndarray) -> tuple[float, float]:
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(high - low):  # NaN spreads through both
        raise UnreadableError("the file holds values that are not finite")
    return low, high


def _to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = 255.0 / (high - low) if high > low else 0.0
    scaled = (np.asarray(values, np.float64) - low) * scale
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def turn_upright(pixels: np.ndarray, orientation: int) -> Film:
    """An image as a viewer shows it.

    Source: Exif 2.32, table of the tag Orientation.
    """
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation >= 5:
        pixels = pixels.T
    return Film(np.ascontiguousarray(pixels), orientation)


def decode_by_opencv(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UnreadableError(f"the file cannot be decoded ({error.err})") from error
    if pixels is None:
        raise UnreadableError("the file is damaged")
    return pixels


def to_gray(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else luma(pixels, cv2.COLOR_BGR2GRAY)
