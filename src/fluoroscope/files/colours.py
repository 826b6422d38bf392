"""How much of an image file is colour. Readers return brightness alone; a chest film is gray."""

import io
import warnings

import numpy as np
from PIL import Image

from fluoroscope.files.arrays import NUMPY_START, load_array
from fluoroscope.files.images import is_dicom
from fluoroscope.files.pixels import UnreadableError

SPREAD = 24  # of 256 levels between the channels; JPEG's rounding of gray stays below
LOOKED_PX = 128  # side of the small copy that is looked at
GRAY_MODES = ("1", "L", "LA", "La", "I", "F")  # and I;16 with its variants


def colour_frac(data: bytes) -> float:
    """Share of coloured pixels of an image file that was decoded before; NaN if it is not known.

    Gray pixels stored as colours count as gray.
    """
    try:
        if data.startswith(NUMPY_START):
            return array_colour_frac(load_array(data))
        if is_dicom(data):
            from fluoroscope.files.dicom import dicom_colours

            colours = dicom_colours(data)
            return 0.0 if colours is None else array_colour_frac(colours)
        return array_colour_frac(_raster_colours(data))
    except (UnreadableError, OSError, ValueError, SyntaxError, MemoryError):
        return float("nan")


def array_colour_frac(pixels: np.ndarray) -> float:
    """Share of coloured pixels of an array; 0 unless it is [H, W, 3 or 4]."""
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return 0.0
    step = max(1, min(pixels.shape[:2]) // LOOKED_PX)
    rgb = pixels[::step, ::step, :3].astype(np.float64)
    highest = rgb.max() if pixels.dtype != np.uint8 else 255.0
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    return float((255 * spread > SPREAD * highest).mean())


def _raster_colours(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they name no file; the reader has checked the size
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in GRAY_MODES or image.mode.startswith("I;16"):
                return np.zeros((1, 1))
            image.draft("RGB", (2 * LOOKED_PX, 2 * LOOKED_PX))  # a JPEG is decoded at this size
            return np.asarray(image.convert("RGB"))
