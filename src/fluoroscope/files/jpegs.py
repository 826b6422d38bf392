"""JPEG files to pixels."""

import cv2
import numpy as np

from fluoroscope.files.image_headers import is_whole, jpeg_orientation, stream_size
from fluoroscope.files.pixels import (
    Film,
    UnreadableError,
    check_size,
    decode_by_opencv,
    turn_upright,
)

LOST = ("Corrupt JPEG data", "Premature end")  # warnings of the codec that cost pixels


def decode_jpeg(data: bytes) -> Film:
    """Luma of a JPEG file, as its orientation tag says; anything may follow its end marker.

    Raises:
        UnreadableError: for too many pixels, and a file that is truncated or damaged.
    """
    width, height, _ = stream_size(data) or (0, 0, 0)
    check_size(width, height)
    if not is_whole(data):
        raise UnreadableError("the file is truncated")
    return turn_upright(jpeg_luma(data), jpeg_orientation(data))


def jpeg_luma(data: bytes) -> np.ndarray:
    """The luma of a JPEG, without decoding its colours.

    Other libraries print the codec's warnings, without the file, and return gray or shifted blocks
    for the pixels that are lost; simplejpeg raises them. Its pixels are those of OpenCV.

    Raises:
        UnreadableError: for a damaged JPEG.
    """
    import simplejpeg

    try:
        return simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
    except ValueError as error:
        reason = str(error)
    if any(start in reason for start in LOST):
        raise UnreadableError(f"the JPEG is damaged; its decoder says: {reason}")
    try:  # a kind that simplejpeg does not know, or a warning that costs no pixels
        return decode_by_opencv(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except UnreadableError:
        raise UnreadableError(f"the JPEG cannot be decoded: {reason}") from None
