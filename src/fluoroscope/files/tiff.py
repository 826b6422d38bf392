"""What OpenCV does not say of a TIFF file: size before decoding, pages, depth, polarity."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from fluoroscope.files.pixels import UnreadableError

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_SAMPLES, _PLANAR = 277, 284
_REDUCED = 1  # a smaller copy of another page
_SEPARATE = 2  # the samples of a colour one plane after the other
_MAX_PAGES = 16  # a chain of pages may bite its tail
_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # field types of whole numbers


class Page(NamedTuple):
    """A page's size in px, bits of a sample, whether its zero is white and its colours lie in
    planes of their own.
    """

    width: int
    height: int
    bits: int
    zero_is_white: bool
    in_planes: bool


def read_pages(data: bytes) -> list[Page]:
    """Pages that are no reduced copies, at most 16.

    Raises:
        UnreadableError: for a directory of tags that is not in the file, and for a reduced copy as
            the first page, which is the one that OpenCV decodes.

    Source: TIFF 6.0, section 2; a BigTIFF has eight bytes where a TIFF has two or four.
    """
    directories = list(_directories(data))
    reduced = [bool(tags.get(_SUBFILE, 0) & _REDUCED) for tags in directories]
    if any(reduced[:1]):
        raise UnreadableError("its first page is a reduced copy of the image; save the image alone")
    return [_page(tags) for tags, small in zip(directories, reduced, strict=True) if not small]


def _page(tags: dict[int, int]) -> Page:
    return Page(
        tags.get(_WIDTH, 0),
        tags.get(_HEIGHT, 0),
        tags.get(_BITS, 1),
        zero_is_white=not tags[_PHOTOMETRIC],
        in_planes=tags.get(_PLANAR) == _SEPARATE and tags.get(_SAMPLES, 1) > 1,
    )


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Tags of each page: the first value of those that hold whole numbers."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    pointer, size = ("Q", 8) if big else ("I", 4)
    at = _number(data, order + pointer, size)
    for _ in range(_MAX_PAGES):
        if not at:
            return
        count, start = _number(data, order + ("Q" if big else "H"), at), at + (8 if big else 2)
        tags = {_PHOTOMETRIC: 1}
        for place in range(start, min(start + count * (4 + 2 * size), len(data)), 4 + 2 * size):
            tag, kind = (_number(data, order + "H", place + 2 * field) for field in (0, 1))
            if kind in _FORMATS:
                tags[tag] = _first_value(data, order, place, _FORMATS[kind], pointer)
        yield tags
        at = _number(data, order + pointer, start + count * (4 + 2 * size))


def _first_value(data: bytes, order: str, entry: int, form: str, pointer: str) -> int:
    """The value itself, or the first of those that do not fit and lie elsewhere."""
    size = struct.calcsize(pointer)
    count, place = _number(data, order + pointer, entry + 4), entry + 4 + size
    if count * struct.calcsize(form) > size:
        place = _number(data, order + pointer, place)
    return _number(data, order + form, place)


def _number(data: bytes, form: str, at: int) -> int:
    try:
        return struct.unpack_from(form, data, at)[0]
    except (struct.error, OverflowError) as error:
        raise UnreadableError("the file is truncated") from error
