"""The places of findings on a film: boxes and masks, on the square that the network sees."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np

from fluoroscope.errors import InputError

Shape = tuple[int, int]  # height and width in pixels
HALF = 0.5


class Box(NamedTuple):
    """A rectangle on a film.

    Attributes:
        x, y, width, height: in pixels from the upper left corner.
        frame: the size that the numbers refer to; None is the size of the film itself.
    """

    x: float
    y: float
    width: float
    height: float
    frame: tuple[float, float] | None = None

    def paint(self, film: Shape, size_px: int) -> np.ndarray:
        """Bool `[size_px, size_px]`, see `on_square`; a box of less than a pixel has one pixel.

        Raises:
            InputError: the box lies outside its frame.
        """
        rows, columns = self.frame or film
        if not (
            self.width > 0
            and self.height > 0
            and -1 <= self.x < self.x + self.width <= columns + 1
            and -1 <= self.y < self.y + self.height <= rows + 1
        ):
            raise InputError(
                f"boxes: a box of {self.width:g} x {self.height:g} pixels at ({self.x:g}, "
                f"{self.y:g}) does not lie on a film of {columns:g} x {rows:g} pixels; if the "
                "films were resized, use the original ones"
            )
        (top, left), (high, wide) = film_on_square(film, size_px)
        down = _between(self.y / rows, (self.y + self.height) / rows, high)
        across = _between(self.x / columns, (self.x + self.width) / columns, wide)
        square = np.zeros((size_px, size_px), bool)
        square[top + down.start : top + down.stop, left + across.start : left + across.stop] = True
        return square


class Mask(NamedTuple):
    """An area that is drawn pixel by pixel.

    Attributes:
        read: returns it, bool `[H, W]` over the whole film, in any size.
    """

    read: Callable[[], np.ndarray]

    def paint(self, film: Shape, size_px: int) -> np.ndarray:
        """Bool `[size_px, size_px]`: pixels that are covered by half or more.

        If none is, those that are covered most. Nothing for a mask without a pixel.
        """
        (top, left), (high, wide) = film_on_square(film, size_px)
        whole = self.read().astype(np.float32)
        area = cv2.resize(whole, (wide, high), interpolation=cv2.INTER_AREA)
        square = np.zeros((size_px, size_px), bool)
        square[top : top + high, left : left + wide] = (area > 0) & (area >= min(HALF, area.max()))
        return square


Region = Box | Mask
# By film (`sources.reading.tree.film_key` of its name), the regions of each finding.
Regions = dict[str, dict[str, list[Region]]]


def _between(start: float, end: float, size: int) -> range:
    """The pixels whose centres lie between two shares of the size; the nearest one if none does."""
    first, last = (round(min(max(share, 0), 1) * size) for share in (start, end))
    if last > first:
        return range(first, last)
    nearest = min(int((start + end) / 2 * size), size - 1)
    return range(nearest, nearest + 1)


def film_on_square(film: Shape, size_px: int) -> tuple[Shape, Shape]:
    """Where `files.images.fit_square` puts a film: its upper left corner and its size, in pixels.

    >>> film_on_square((300, 200), 150)
    ((0, 25), (150, 100))
    """
    longest = max(film)
    height, width = (max(1, round(side * size_px / longest)) for side in film)
    return ((size_px - height) // 2, (size_px - width) // 2), (height, width)


def film_area(film: Shape, size_px: int) -> np.ndarray:
    """The pixels of the square that show the film and not the margin, bool `[S, S]`."""
    (top, left), (height, width) = film_on_square(film, size_px)
    area = np.zeros((size_px, size_px), bool)
    area[top : top + height, left : left + width] = True
    return area


def paint(regions: Iterable[Region], film: Shape, size_px: int) -> np.ndarray:
    """The union of the regions of one finding on one film, bool `[S, S]`."""
    painted = [region.paint(film, size_px) for region in regions]
    return np.logical_or.reduce(painted)
