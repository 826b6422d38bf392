"""TIFF files to pixels."""

import io
import struct
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fluoroscope.files.image_headers import valid_orientation
from fluoroscope.files.pixels import (
    Film,
    UnreadableError,
    check_size,
    decode_by_opencv,
    scale_range,
    to_gray,
)

MAX_PAGES = 16  # the pages of a TIFF may form a loop
FLOAT = 3  # the sample format
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # they do not name the file


class _Page(NamedTuple):
    width: int
    height: int
    bits: int  # of a sample
    zero_is_white: bool
    separate_planes: bool  # colours one after the other, not interleaved
    is_reduced: bool  # a smaller copy of another page
    orientation: int
    is_float: bool


def decode_tiff(data: bytes) -> Film:
    """Gray pixels of a TIFF file with one page, as its orientation tag says.

    Raises:
        UnreadableError: for several pages, kinds that OpenCV decodes wrongly, too many pixels, and
            a file that is truncated or damaged.
    """
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
    if page.is_float and page.bits < 32:  # which OpenCV takes for damage
        raise UnreadableError(
            f"a TIFF of {page.bits}-bit floating-point numbers is not supported; save it with 32"
        )
    pixels = decode_by_opencv(data)
    # OpenCV converts some kinds to 8-bit colours: they lose depth, and alpha darkens them.
    if page.bits > 8 * pixels.itemsize:
        raise UnreadableError(f"this kind of {page.bits}-bit TIFF is not supported; save it as PNG")
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (pixels[..., 3] < pixels[..., 3].max()).any():
        raise UnreadableError("the TIFF is transparent in places; save it without alpha")
    scaled = scale_range(to_gray(pixels))
    # OpenCV itself turns the image by its tag, and inverts images of up to 8 bits.
    is_negative = page.zero_is_white and pixels.itemsize > 1
    return Film(255 - scaled if is_negative else scaled, page.orientation)


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
                orientation=valid_orientation(_first_value(tags, 274, 1)),
                is_float=_first_value(tags, 339, 1) == FLOAT,
            )
    except (struct.error, OverflowError, ValueError, TypeError, IndexError, ArithmeticError):
        raise UnreadableError("the file is truncated or damaged: its TIFF tags") from None


def _first_value(tags: ImageFileDirectory_v2, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    return int(value[0] if isinstance(value, tuple | bytes) else value)
