"""Regions of an image, and filling a region with what lies around it.

A region is a boolean array [S, S] over a square image of side S.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Region = NDArray[np.bool_]
CORNER_FRAC, BORDER_FRAC = 0.22, 0.10  # of the side
# Centre and half axes of the ellipse that holds the lungs of most films, as shares of the side.
ELLIPSE_CENTRE, ELLIPSE_AXES = (0.50, 0.475), (0.44, 0.42)  # x, y
MARGIN_FRAC = 0.02  # around the lungs of a mask, as a share of the side


def corners(size_px: int) -> Region:
    """The four squares in the corners."""
    near = _edge_distance(size_px) < CORNER_FRAC * size_px
    return near[:, None] & near[None, :]


def borders(size_px: int) -> Region:
    """A frame along the four sides, corners included."""
    near = _edge_distance(size_px) < BORDER_FRAC * size_px
    return near[:, None] | near[None, :]


def _edge_distance(size_px: int) -> NDArray[np.float64]:
    """Distance of each pixel's centre from the nearer end of its row [S]."""
    place = np.arange(size_px) + 0.5
    return np.minimum(place, size_px - place)


def ellipse(size_px: int) -> Region:
    """A central ellipse that holds both lungs and the heart of most frontal films."""
    place = (np.arange(size_px) + 0.5) / size_px
    (x, y), (across, along) = ELLIPSE_CENTRE, ELLIPSE_AXES
    return ((place[:, None] - y) / along) ** 2 + ((place[None, :] - x) / across) ** 2 < 1


def around_lungs(lungs: Region) -> Region:
    """The convex hull of the lungs with a small margin: lungs, heart and mediastinum.

    So the heart is hidden together with the lungs, and so are the lung bases, which masks of the
    lungs leave out if fluid covers them. Nothing for a mask without a pixel.
    """
    points = cv2.findNonZero(lungs.astype(np.uint8))
    filled = np.zeros(lungs.shape, np.uint8)
    if points is None:
        return filled.astype(bool)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    reach = round(MARGIN_FRAC * len(lungs))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(filled, kernel).astype(bool)


def nearest_outside(region: Region) -> NDArray[np.int64]:
    """For each pixel, the flat index of the nearest pixel outside the region [S, S].

    A pixel outside stands for itself. If the region is the whole image, all do.
    """
    outside = np.flatnonzero(~region)
    if not len(outside):
        return np.arange(region.size).reshape(region.shape)
    inside = region.astype(np.uint8)
    kind = cv2.DIST_LABEL_PIXEL
    _, label = cv2.distanceTransformWithLabels(inside, cv2.DIST_L2, 5, labelType=kind)
    index = np.zeros(label.max() + 1, np.int64)
    index[label.ravel()[outside]] = outside
    return index[label]


def fill(image: NDArray[np.uint8], source: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The image with each pixel replaced by the one that `nearest_outside` names.

    Nothing of the region is left: the result depends on the pixels outside alone.
    """
    return image.ravel()[source]
