"""Image files to pixels: `uint8 [H, W]`, 0 is dark and 255 bright."""

import os
import stat
from pathlib import Path

import cv2
import numpy as np

from fluoroscope.errors import InputError
from fluoroscope.files.arrays import NUMPY_START, decode_array
from fluoroscope.files.pixels import MAX_BYTES, Film, UnreadableError
from fluoroscope.files.rasters import decode_raster


def read_image(path: str | Path) -> np.ndarray:
    """Gray pixels of an image file, uint8 [H, W].

    Reads PNG, JPEG, TIFF, BMP, NumPy and DICOM files, recognised by their content. 8-bit pixels are
    unchanged; deeper ones are scaled by their own minimum and maximum, so a 16-bit file with 12-bit
    values keeps its contrast. Colour becomes luma, alpha is dropped. Orientation tags are obeyed.
    For DICOM see `voi_lut.brightness`.

    Raises:
        InputError: `cannot read image PATH: REASON`, for a file that is missing, empty or
            damaged, or of another format.
    """
    try:
        return decode(path)
    except UnreadableError as error:
        raise InputError(f"cannot read image {path}: {error}") from error


def fit_square(image: np.ndarray, size_px: int) -> np.ndarray:
    """Scale an image to fit a square, centred on black; uint8 [H, W] to [size_px, size_px]."""
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


def decode(path: str | Path) -> np.ndarray:
    """As `read_image`; raises UnreadableError, which says why without the path."""
    return decode_film(path).pixels


def decode_film(path: str | Path) -> Film:
    """As `decode`, with the orientation tag."""
    return decode_data(read_file(path))


def decode_data(data: bytes) -> Film:
    """As `decode_film`, from the content of the file."""
    try:
        if data.startswith(NUMPY_START):
            return Film(decode_array(data))
        if not is_dicom(data):
            return decode_raster(data)
        from fluoroscope.files.dicom import decode_dicom

        return Film(decode_dicom(data))
    except MemoryError as error:
        raise UnreadableError("there is not enough memory to decode it") from error


def is_dicom(data: bytes) -> bool:
    """Whether a file starts as DICOM does: with a preamble or, as some old files, without one.

    Without a preamble the first element is of group 2 or 8: group, element, then a VR (explicit) or
    a length of less than 64 KiB (implicit).
    """
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8 or data[:2] not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        return False
    return data[4:6] in (b"UL", b"CS", b"UI", b"OB", b"SH", b"DA") or data[6:8] == b"\0\0"


def read_file(path: str | Path) -> bytes:
    """The content of an image file; raises UnreadableError, as `decode` does."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its writer
            raise UnreadableError("it is a directory, a pipe or a device, not a file")
        if found.st_size > MAX_BYTES:
            raise UnreadableError(f"the file is larger than {MAX_BYTES // 2**20} MiB")
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", "") or str(error) or "too little memory to read it"
        raise UnreadableError(reason.lower()) from error
    except ValueError as error:
        raise UnreadableError("its name contains a null character") from error
    if not data:
        raise UnreadableError("the file is empty")
    return data
