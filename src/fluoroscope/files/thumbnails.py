"""Small pictures of image files for pages that load nothing from elsewhere."""

import base64
from pathlib import Path

import cv2

from fluoroscope.files.images import UnreadableError, decode

SIDE_PX = 144


def thumbnail(path: str | Path, side_px: int = SIDE_PX) -> str:
    """A PNG as a `data:` address; empty if the image cannot be read.

    Args:
        side_px: of its longer side.
    """
    try:
        pixels = decode(path)
    except UnreadableError:
        return ""
    scale = side_px / max(pixels.shape)
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[::-1])
    png = cv2.imencode(".png", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))[1]
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
