"""The changes of the images: one table, in the order in which they are shown."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoroscope.probes.regions import Region, borders, corners, fill, nearest_outside

Image = NDArray[np.uint8]  # [S, S]
BLUR_FRAC = 0.06  # standard deviation of the blur, as a share of the side
SHIFT = 25  # grey levels of 255
GAIN = 1.25  # of the contrast about the middle grey


class Change(NamedTuple):
    """A change of an image.

    Attributes:
        title: what is done, for readers.
        means: what it means if the score depends on it.
        apply: (image [S, S], lungs [S, S]) to the changed image [S, S].
    """

    title: str
    means: str
    apply: Callable[[Image, Region], Image]


def _without(region: Callable[[int], Region]) -> Callable[[Image, Region], Image]:
    known: dict[int, NDArray[np.int64]] = {}  # by side: the same for all images

    def apply(image: Image, lungs: Region) -> Image:
        side = len(image)
        if side not in known:
            known[side] = nearest_outside(region(side))
        return fill(image, known[side])

    return apply


def _blur_lungs(image: Image, lungs: Region) -> Image:
    result = image.copy()
    result[lungs] = cv2.GaussianBlur(image, (0, 0), BLUR_FRAC * len(image))[lungs]
    return result


def _hide_lungs(image: Image, lungs: Region) -> Image:
    return fill(image, nearest_outside(lungs))


def _keep_lungs(image: Image, lungs: Region) -> Image:
    return fill(image, nearest_outside(~lungs))


def _flip(image: Image, lungs: Region) -> Image:
    return image[:, ::-1]


def _halve(image: Image, lungs: Region) -> Image:
    side = len(image)
    small = cv2.resize(image, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _level(gain: float, shift: float) -> Callable[[Image, Region], Image]:
    grey = np.arange(256)
    table = np.clip(np.rint((grey - 127.5) * gain + 127.5 + shift), 0, 255).astype(np.uint8)
    return lambda image, lungs: table[image]


MARKS = "it reads markers, text or devices there"
OUTSIDE = (
    "it reads something outside the lungs, such as a marker, a device, the position or the exposure"
)
DETAIL, SIDE = "it needs fine detail", "it needs a side: of the heart, or of a marker"
EXPOSURE = "it depends on the exposure of the film"
CHANGES: dict[str, Change] = {
    "corners_masked": Change("without the four corners", MARKS, _without(corners)),
    "borders_masked": Change("without the borders", MARKS, _without(borders)),
    "lungs_hidden": Change("without the lungs", OUTSIDE, _hide_lungs),
    "lungs_blurred": Change("with blurred lungs", DETAIL, _blur_lungs),
    "lungs_only": Change("with the lungs alone", OUTSIDE, _keep_lungs),
    "flipped": Change("on mirrored films", SIDE, _flip),
    "half_resolution": Change("at half resolution", DETAIL, _halve),
    "darker": Change("on darker films", EXPOSURE, _level(1, -SHIFT)),
    "brighter": Change("on brighter films", EXPOSURE, _level(1, SHIFT)),
    "less_contrast": Change("with less contrast", EXPOSURE, _level(1 / GAIN, 0)),
    "more_contrast": Change("with more contrast", EXPOSURE, _level(GAIN, 0)),
}


def changed(name: str, images: NDArray[np.uint8], lungs: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """All images of a batch with the change `name`, uint8 [B, S, S].

    Args:
        name: a key of `CHANGES`.
        images: uint8 [B, S, S].
        lungs: the region of the lungs of each image [B, S, S].
    """
    apply = CHANGES[name].apply
    return np.stack([apply(*pair) for pair in zip(images, lungs, strict=True)])
