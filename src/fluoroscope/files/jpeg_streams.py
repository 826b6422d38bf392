"""JPEG streams of DICOM files: more than 8 bits, lossless and JPEG-LS, as a plugin of pydicom.

Of pydicom's own plugins for them one is under the GPL (pylibjpeg-libjpeg), and one ends the process
for some damaged streams (gdcm).
"""

from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
)

from fluoroscope.files.image_headers import SCAN, jpeg_segments

PLUGIN = "imagecodecs"
SYNTAXES = [
    *(JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
    *(JPEGLSLossless, JPEGLSNearLossless),
]
_LAST = 16  # bytes at the end of a scan: some hold pixels, whatever a writer appended
_OTHER = bytes(range(1, 65))


def decode_jpeg_stream(stream: bytes, colours: int) -> np.ndarray:
    """Stored pixels of a JPEG of 2 to 16 bits, [H, W] or [H, W, 3] without colour conversion.

    Raises:
        ValueError: for a stream that lost pixels.
        RuntimeError: for a stream that cannot be decoded; an error of the codec.
    """
    from imagecodecs import jpeg8_decode

    kept: dict[str, Any] = dict.fromkeys(
        ["colorspace", "outcolorspace"], "RGB" if colours > 1 else None
    )
    pixels = jpeg8_decode(stream, **kept)
    longer, changed = _other_endings(stream)
    if not np.array_equal(jpeg8_decode(longer, **kept), pixels):
        raise ValueError("the stream is too short for its pixels")
    if pixels.min() < pixels.max() and np.array_equal(jpeg8_decode(changed, **kept), pixels):
        raise ValueError("the stream is too long for its pixels")
    return pixels


def _other_endings(stream: bytes) -> tuple[bytes, bytes]:
    """The stream with bytes behind its last scan, which decodes to the same pixels if none are
    lost, and with the end of that scan replaced, which does not.

    The codec (libjpeg-turbo) invents pixels in place of lost ones, and does not say so.
    """
    segments = list(jpeg_segments(stream))
    start = [segment.end for segment in segments if segment.marker == SCAN][-1]
    scan = stream[start : segments[-1].start - 2].rstrip(b"\xff")  # of fill bytes
    head, rest = stream[:start], stream[start + len(scan) :]
    last = min(_LAST, len(scan))
    return head + scan + _OTHER + rest, head + scan[:-last] + _OTHER[:last] + rest


def is_available(uid: str) -> bool:
    """Part of pydicom's interface of plugins."""
    return uid in SYNTAXES and find_spec("imagecodecs") is not None


DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs",))


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytes:
    """Part of pydicom's interface of plugins: little-endian pixels, their colours interleaved."""
    from imagecodecs import jpegls_decode

    if runner.transfer_syntax in JPEGLSTransferSyntaxes:
        pixels = jpegls_decode(stream)
    else:
        pixels = decode_jpeg_stream(stream, runner.samples_per_pixel)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    runner.set_option("planar_configuration", 0)
    return pixels.tobytes()


for _syntax in SYNTAXES:
    with suppress(ValueError):  # the module was loaded before
        get_decoder(_syntax).add_plugin(PLUGIN, (__name__, "decode_frame"))
