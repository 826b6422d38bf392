"""PNG, JPEG, TIFF and BMP files to pixels, by OpenCV."""

import struct

import cv2
import numpy as np

from fluoroscope.files.image_headers import JPEG_START, codestream_size
from fluoroscope.files.pixels import UnreadableError, check_size, luma, scale_range
from fluoroscope.files.tiff import TIFF_STARTS, read_pages

PNG_START, BMP_START = b"\x89PNG\r\n\x1a\n", b"BM"
TAIL_BYTES = 1024  # some writers pad a file behind its end marker
# a JPEG's luma comes without its colours; a camera's note on its orientation is no radiographer's
_JPEG_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION

# Its complaints name neither the file nor what became of it; the errors raised here do.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode_raster(data: bytes) -> np.ndarray:
    """Gray pixels of a PNG, JPEG, TIFF or BMP file, uint8 [H, W].

    Raises:
        UnreadableError: for another kind of file, a truncated or damaged one, one of several pages
            or of too many pixels, and values that are not finite.
    """
    if data.startswith(PNG_START):
        return _decode_png(data)
    if data.startswith(JPEG_START):
        return _decode_jpeg(data)
    if data.startswith(TIFF_STARTS):
        return _decode_tiff(data)
    if data.startswith(BMP_START):
        return _decode_bmp(data)
    raise UnreadableError("it is no image of a known kind (PNG, JPEG, TIFF, BMP, DICOM, NumPy)")


def _decode_png(data: bytes) -> np.ndarray:
    _check_chunks(data)
    check_size(*struct.unpack_from(">2I", data, 16))
    return scale_range(_gray(_decode(data)))


def _check_chunks(data: bytes) -> None:
    """Refuse a chunk that ends behind the file: OpenCV takes memory for whatever length it says.
    And of several frames it would take the first.
    """
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        if data[at + 4 : at + 8] == b"acTL":
            raise UnreadableError("it is animated; one image a file is needed")
        if at + 12 > len(data):
            raise UnreadableError("the file is truncated")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    if at < 33:
        raise UnreadableError("it is damaged: a PNG without a header")


def _decode_jpeg(data: bytes) -> np.ndarray:
    # OpenCV makes a half-gray picture of a truncated file instead of an error.
    if b"\xff\xd9" not in data[-TAIL_BYTES:]:
        raise UnreadableError("the file is truncated")
    check_size(*(codestream_size(data) or (0, 0)))
    return _decode(data, _JPEG_FLAGS)


def _decode_tiff(data: bytes) -> np.ndarray:
    pages = read_pages(data)
    if len(pages) != 1:
        raise UnreadableError(f"it has {len(pages)} pages; one image a file is needed")
    page = pages[0]
    check_size(page.width, page.height)
    if page.in_planes and page.bits > 8:  # OpenCV takes the first plane for whole pixels
        raise UnreadableError(f"its {page.bits}-bit colours are in separate planes; save as PNG")
    pixels = _decode(data)
    # What OpenCV reads through eight bits of colour loses its depth, and darkens with its alpha.
    if page.bits > 8 * pixels.itemsize:
        raise UnreadableError(f"it is a kind of {page.bits}-bit TIFF that is not read; save as PNG")
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (pixels[..., 3] < pixels[..., 3].max()).any():
        raise UnreadableError("it is a TIFF that is transparent in places; save it without alpha")
    shown = scale_range(_gray(pixels))
    # OpenCV itself inverts eight bits and fewer.
    return 255 - shown if page.zero_is_white and pixels.itemsize > 1 else shown


def _decode_bmp(data: bytes) -> np.ndarray:
    if len(data) < 26:
        raise UnreadableError("the file is truncated")
    old = struct.unpack_from("<I", data, 14)[0] == 12  # the header of OS/2 has shorter fields
    width, height = struct.unpack_from("<2H" if old else "<2i", data, 18)
    check_size(abs(width), abs(height))  # a negative height goes from the top down
    return scale_range(_gray(_decode(data)))


def _decode(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UnreadableError(f"it cannot be decoded ({error.err})") from error
    if pixels is None:
        raise UnreadableError("it is damaged")
    return pixels


def _gray(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else luma(pixels, cv2.COLOR_BGR2GRAY)
