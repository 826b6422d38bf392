"""The size that a JPEG, JPEG-LS or JPEG 2000 stream claims, read before it is decoded.

Pillow is not used: it refuses JPEGs of more than 8 bits, lossless ones and JPEG-LS, which are
common in DICOM files.
"""

import struct

from fluoroscope.files.pixels import UnreadableError

JPEG_START, JPEG2000_START = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
# Of frame headers. C4, C8 and CC mark other segments; F7 is the frame header of JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # no length follows
_MAX_SEGMENTS = 10_000  # bounds the time for a file of empty segments


def codestream_size(stream: bytes) -> tuple[int, int] | None:
    """Width and height in px of a JPEG, JPEG-LS or JPEG 2000 stream; None for another kind.

    Raises:
        UnreadableError: for a JPEG without a frame header.

    Source: ITU-T T.81 B.2.2 and T.87 C.2.2 (frame header), T.800 A.5.1 (SIZ).
    """
    if stream.startswith(JPEG_START):
        return _jpeg_size(stream)
    if stream.startswith(JPEG2000_START) and len(stream) >= 24:
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        return right - left, bottom - top
    return None


def _jpeg_size(stream: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        at = stream.find(b"\xff", at)
        if at < 0 or at + 9 > len(stream):
            break
        marker = stream[at + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">2H", stream, at + 5)
            return width, height
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    raise UnreadableError("the file is damaged: a JPEG without a frame header")
