"""PNG, JPEG, TIFF and BMP files to pixels, decoded by OpenCV."""

import io
import struct
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fluoroscope.files.image_headers import JPEG_START, codestream_size
from fluoroscope.files.pixels import UnreadableError, check_size, luma, scale_range

PNG_START, BMP_START = b"\x89PNG\r\n\x1a\n", b"BM"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
TAIL_BYTES = 1024  # some writers pad a file behind its end marker
MAX_PAGES = 16  # the pages of a TIFF may form a loop
# OpenCV returns a JPEG's luma without decoding its colours. EXIF orientations of cameras do not
# apply to radiographs.
_JPEG_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION

# Messages of OpenCV and Pillow do not name the file; the errors raised here lead to one that does.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")


def decode_raster(data: bytes) -> np.ndarray:
    """Gray pixels of a PNG, JPEG, TIFF or BMP file, uint8 [H, W].

    Raises:
        UnreadableError: for another format, a truncated or damaged file, several pages, too many
            pixels, and values that are not finite.
    """
    if data.startswith(PNG_START):
        return _decode_png(data)
    if data.startswith(JPEG_START):
        return _decode_jpeg(data)
    if data.startswith(TIFF_STARTS):
        return _decode_tiff(data)
    if data.startswith(BMP_START):
        return _decode_bmp(data)
    raise UnreadableError(
        "the file is not an image in a supported format (PNG, JPEG, TIFF, BMP, DICOM, NumPy)"
    )


def _decode_png(data: bytes) -> np.ndarray:
    _check_chunks(data)
    check_size(*struct.unpack_from(">2I", data, 16))
    return scale_range(_gray(_decode(data)))


def _check_chunks(data: bytes) -> None:
    """Refuse animations, of which OpenCV returns the first frame, and chunks longer than the file.

    OpenCV allocates whatever length a chunk claims. Pillow's parser does not help: it stops at the
    first image data.
    """
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        if data[at + 4 : at + 8] == b"acTL":
            raise UnreadableError("the file is animated; save one image per file")
        if at + 12 > len(data):
            raise UnreadableError("the file is truncated")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    if at < 33:
        raise UnreadableError("the file is damaged: a PNG without a header")


def _decode_jpeg(data: bytes) -> np.ndarray:
    # OpenCV returns a half-gray image for a truncated file, not an error.
    if b"\xff\xd9" not in data[-TAIL_BYTES:]:
        raise UnreadableError("the file is truncated")
    check_size(*(codestream_size(data) or (0, 0)))
    return _decode(data, _JPEG_FLAGS)


class _Page(NamedTuple):
    width: int
    height: int
    bits: int  # of a sample
    zero_is_white: bool
    separate_planes: bool  # colours one after the other, not interleaved
    is_reduced: bool  # a smaller copy of another page


def _decode_tiff(data: bytes) -> np.ndarray:
    pages = list(_read_pages(data))
    if pages and pages[0].is_reduced:  # OpenCV decodes the first page
        raise UnreadableError("its first page is a reduced copy of the image; save the image alone")
    pages = [page for page in pages if not page.is_reduced]
    if len(pages) != 1:
        raise UnreadableError(f"the file has {len(pages)} pages; save one image per file")
    page = pages[0]
    check_size(page.width, page.height)
    if page.separate_planes and page.bits > 8:  # OpenCV takes the first plane for whole pixels
        raise UnreadableError(f"its {page.bits}-bit colours are in separate planes; save it as PNG")
    pixels = _decode(data)
    # OpenCV converts some kinds to 8-bit colours: they lose depth, and alpha darkens them.
    if page.bits > 8 * pixels.itemsize:
        raise UnreadableError(f"this kind of {page.bits}-bit TIFF is not supported; save it as PNG")
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (pixels[..., 3] < pixels[..., 3].max()).any():
        raise UnreadableError("the TIFF is transparent in places; save it without alpha")
    scaled = scale_range(_gray(pixels))
    # OpenCV itself inverts images of up to 8 bits.
    return 255 - scaled if page.zero_is_white and pixels.itemsize > 1 else scaled


def _read_pages(data: bytes) -> Iterator[_Page]:
    """The tags of each page, at most `MAX_PAGES`, read by Pillow without decoding any pixels."""
    file, is_big = io.BytesIO(data), 43 in data[2:4]
    # Pillow recognises a BigTIFF in little-endian order alone; the order is the second argument.
    header = b"II+\0" + data[4:16] if is_big else b"II*\0" + data[4:8]
    try:
        tags = ImageFileDirectory_v2(header, data[:2])
        for _ in range(MAX_PAGES):
            if not tags.next:
                return
            file.seek(tags.next)
            tags.next = -1
            tags.load(file)
            if tags.next < 0:  # Pillow warns of a directory that is cut off, and stops
                raise UnreadableError("the file is truncated")
            yield _Page(
                _first_value(tags, 256, 0),
                _first_value(tags, 257, 0),
                _first_value(tags, 258, 1),
                zero_is_white=_first_value(tags, 262, 1) == 0,
                separate_planes=_first_value(tags, 284, 1) == 2 and _first_value(tags, 277, 1) > 1,
                is_reduced=bool(_first_value(tags, 254, 0) & 1),
            )
    except (struct.error, OverflowError, ValueError, TypeError, IndexError, ArithmeticError):
        raise UnreadableError("the file is truncated or damaged: its TIFF tags") from None


def _first_value(tags: ImageFileDirectory_v2, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    return int(value[0] if isinstance(value, tuple | bytes) else value)


def _decode_bmp(data: bytes) -> np.ndarray:
    if len(data) < 26:
        raise UnreadableError("the file is truncated")
    old = struct.unpack_from("<I", data, 14)[0] == 12  # the header of OS/2 has shorter fields
    width, height = struct.unpack_from("<2H" if old else "<2i", data, 18)
    check_size(abs(width), abs(height))  # a negative height: rows from the top down
    return scale_range(_gray(_decode(data)))


def _decode(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UnreadableError(f"the file cannot be decoded ({error.err})") from error
    if pixels is None:
        raise UnreadableError("the file is damaged")
    return pixels


def _gray(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else luma(pixels, cv2.COLOR_BGR2GRAY)
