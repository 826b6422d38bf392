"""Simple numbers of one film, by which an unusual one is recognised.

They are taken from the pixels of the file, not from the network's input, so that they do not depend
on `data.image_px`.
"""

import cv2
import numpy as np

from fluoroscope.data.image_stats import SMALL_PX, contrast, polarity

NUMBERS = ("side_px", "contrast", "colour_frac", "polarity", "mediastinum")
GRAYS_PX = 8  # side of the picture that tells a chest film from other images
LENGTH = len(NUMBERS) + GRAYS_PX**2


def film_facts(pixels: np.ndarray, colour_frac: float) -> np.ndarray:
    """Numbers of one film, float32 [69]: those of `NUMBERS`, then its 8 x 8 gray levels.

    `side_px` is the shorter side; `contrast` the range of the middle 95 % of the gray levels, 0 to
    255; `polarity` is positive for a frontal film (see `image_stats.polarity`); the gray levels
    have mean 0 and standard deviation 1.

    Args:
        pixels: uint8 [H, W], 0 is dark.
        colour_frac: of `files.colours`.
    """
    small = cv2.resize(pixels, (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
    grays = cv2.resize(small, (GRAYS_PX, GRAYS_PX), interpolation=cv2.INTER_AREA).astype(float)
    spread = grays.std() or 1.0
    numbers = min(pixels.shape), contrast(small), colour_frac, polarity(small), mediastinum(small)
    return np.array([*numbers, *((grays - grays.mean()) / spread).ravel()], np.float32)


def mediastinum(small: np.ndarray) -> float:
    """How much brighter the middle of a thumbnail [64, 64] is than both lungs.

    In standard deviations: positive for a frontal film, with the mediastinum between two lungs;
    negative for a lateral film, which shows one lung field in the middle. 0 for a constant image.
    """
    spread = float(small.std())
    middle = small[16:44, 27:37].mean()
    sides = small[16:38, 12:25].mean(), small[16:38, 39:52].mean()
    return float(middle - max(sides)) / spread if spread else 0.0
