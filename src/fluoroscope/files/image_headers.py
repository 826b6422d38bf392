"""What the header of a JPEG, JPEG-LS or JPEG 2000 stream says, read before it is decoded.

Pillow is not used: it refuses JPEGs of more than 8 bits, lossless ones and JPEG-LS, which are
common in DICOM files.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL.Image import Exif

from fluoroscope.files.pixels import UnreadableError

JPEG_START, JPEG2000_START = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
# Of frame headers. C4, C8 and CC mark other segments; F7 is the frame header of JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # no length follows
SCAN, _END, _APP1, _LS_FRAME = 0xDA, 0xD9, 0xE1, 0xF7
# Within a scan FF 00 is a byte of the pixels, in JPEG-LS FF 00 to FF 7F are; D0 to D7 are restarts.
_MARKER_BEHIND_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_MARKER_BEHIND_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_EXIF, _ORIENTATION = b"Exif\0\0", 0x0112
_MAX_SEGMENTS = 10_000  # bounds the time for a file of empty segments


class StreamSize(NamedTuple):
    """What a frame header claims."""

    width: int
    height: int
    colours: int  # samples per pixel


class Segment(NamedTuple):
    """A part of a JPEG: its marker, and where the content begins behind marker and length."""

    marker: int
    start: int
    end: int


def stream_size(stream: bytes) -> StreamSize | None:
    """Size of a JPEG, JPEG-LS or JPEG 2000 stream; None for another kind.

    Raises:
        UnreadableError: for a JPEG without a frame header.

    Source: ITU-T T.81 B.2.2 and T.87 C.2.2 (frame header), T.800 A.5.1 (SIZ).
    """
    if stream.startswith(JPEG_START):
        return _jpeg_size(stream)
    if stream.startswith(JPEG2000_START) and len(stream) >= 42:
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        return StreamSize(right - left, bottom - top, *struct.unpack_from(">H", stream, 40))
    return None


def _jpeg_size(stream: bytes) -> StreamSize:
    for segment in jpeg_segments(stream):
        if segment.marker in _FRAME_MARKERS and segment.start + 6 <= len(stream):
            height, width, colours = struct.unpack_from(">2HB", stream, segment.start + 1)
            return StreamSize(width, height, colours)
    raise UnreadableError("the file is damaged: a JPEG without a frame header")


def is_whole(stream: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 stream has its end marker, with anything behind it."""
    if stream.startswith(JPEG2000_START):
        return b"\xff\xd9" in stream[stream.find(b"\xff\x93") :]  # not within packets: T.800 A.1.3
    return any(segment.marker == _END for segment in jpeg_segments(stream))


def jpeg_orientation(stream: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; see `exif_orientation`."""
    for segment in jpeg_segments(stream):
        if segment.marker in _FRAME_MARKERS:
            break
        if segment.marker == _APP1 and stream.startswith(_EXIF, segment.start):
            return exif_orientation(stream[segment.start : segment.end])
    return 1


def exif_orientation(block: bytes) -> int:
    """The orientation tag of an EXIF block, 1 to 8; 1 (upright) if it holds none that is valid."""
    exif = Exif()
    try:
        exif.load(block)
        return valid_orientation(exif.get(_ORIENTATION))
    except (struct.error, OverflowError, ValueError, TypeError, SyntaxError, LookupError, OSError):
        return 1


def valid_orientation(tag: object) -> int:
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1


def jpeg_segments(stream: bytes) -> Iterator[Segment]:
    """The segments of a JPEG until its end marker, or until the file ends without one.

    A thumbnail lies inside a segment, so its own markers are not mistaken for those of the film.
    """
    at, behind_scan = 2, _MARKER_BEHIND_SCAN
    for _ in range(_MAX_SEGMENTS):
        at = stream.find(b"\xff", at)
        if at < 0 or at + 2 > len(stream):
            return
        marker, start = stream[at + 1], at + 4
        if marker == 0xFF or marker in _BARE_MARKERS:
            at += 1 if marker == 0xFF else 2  # FF before a marker is a fill byte
            continue
        if marker == _END or start > len(stream):
            yield Segment(marker, at + 2, at + 2)
            return
        at += 2 + int.from_bytes(stream[at + 2 : start], "big")
        yield Segment(marker, start, at)
        if marker == _LS_FRAME:
            behind_scan = _MARKER_BEHIND_LS_SCAN
        if marker == SCAN:
            found = behind_scan.search(stream, at)
            at = found.start() if found else len(stream)
