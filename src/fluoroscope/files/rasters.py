"""PNG, JPEG, TIFF and BMP files to pixels, told apart by their content."""

import struct

import numpy as np

from fluoroscope.files.image_headers import JPEG_START, exif_orientation
from fluoroscope.files.jpegs import decode_jpeg
from fluoroscope.files.pixels import (
    Film,
    UnreadableError,
    check_size,
    decode_by_opencv,
    scale_range,
    to_gray,
    turn_upright,
)
from fluoroscope.files.tiffs import decode_tiff

PNG_START, BMP_START = b"\x89PNG\r\n\x1a\n", b"BM"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF


def decode_raster(data: bytes) -> Film:
    """Gray pixels of a PNG, JPEG, TIFF or BMP file, as its orientation tag says.

    Raises:
        UnreadableError: for another format, a truncated or damaged file, several pages, too many
            pixels, and values that are not finite.
    """
    if data.startswith(PNG_START):
        return _decode_png(data)
    if data.startswith(JPEG_START):
        return decode_jpeg(data)
    if data.startswith(TIFF_STARTS):
        return decode_tiff(data)
    if data.startswith(BMP_START):
        return Film(_decode_bmp(data))
    raise UnreadableError(
        "the file is not an image in a supported format (PNG, JPEG, TIFF, BMP, DICOM, NumPy)"
    )


def _decode_png(data: bytes) -> Film:
    orientation = _check_chunks(data)
    check_size(*struct.unpack_from(">2I", data, 16))
    return turn_upright(scale_range(to_gray(decode_by_opencv(data))), orientation)


def _check_chunks(data: bytes) -> int:
    """The orientation. Refuse animations, of which OpenCV returns the first frame, and chunks
    longer than the file.

    OpenCV allocates whatever length a chunk claims. Pillow's parser does not help: it stops at the
    first image data.
    """
    at, orientation = 8, 1
    while (kind := data[at + 4 : at + 8]) != b"IEND":
        if kind == b"acTL":
            raise UnreadableError("the file is animated; save one image per file")
        if at + 12 > len(data):
            raise UnreadableError("the file is truncated")
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            orientation = exif_orientation(data[at + 8 : end - 4])
        at = end
    if at < 33:
        raise UnreadableError("the file is damaged: a PNG without a header")
    return orientation


def _decode_bmp(data: bytes) -> np.ndarray:
    if len(data) < 26:
        raise UnreadableError("the file is truncated")
    old = struct.unpack_from("<I", data, 14)[0] == 12  # the header of OS/2 has shorter fields
    width, height = struct.unpack_from("<2H" if old else "<2i", data, 18)
    check_size(abs(width), abs(height))  # a negative height: rows from the top down
    return scale_range(to_gray(decode_by_opencv(data)))
