"""Regions, and that a filled region holds nothing of what was there."""

import numpy as np
import pytest
from scipy import ndimage

from fluoroscope.probes import regions
from fluoroscope.probes.changes import BLUR_FRAC, CHANGES, changed

SIDE = 61
RNG = np.random.default_rng(5)
FILM = RNG.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


def blobs(seed):
    """A region of two blobs, somewhere."""
    y, x = np.mgrid[:SIDE, :SIDE]
    centres = np.random.default_rng(seed).uniform(15, SIDE - 15, (2, 2))
    return np.any([np.hypot(y - a, x - b) < 9 for a, b in centres], axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_fill_is_by_the_nearest_pixel_outside(seed):
    region = blobs(seed)
    source = regions.nearest_outside(region)
    assert not region.ravel()[source].any()
    y, x = np.mgrid[:SIDE, :SIDE]
    reached = np.hypot(y - source // SIDE, x - source % SIDE)
    exact = ndimage.distance_transform_edt(region)
    assert np.abs(reached - exact).max() < 0.5  # OpenCV's distances are approximate
    outside = source[~region]
    np.testing.assert_array_equal(outside, np.flatnonzero(~region))


def test_a_region_that_is_the_whole_image_or_nothing_changes_nothing():
    for region in (np.ones((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)):
        np.testing.assert_array_equal(regions.fill(FILM, regions.nearest_outside(region)), FILM)


HIDDEN = {
    "corners_masked": lambda lungs: regions.corners(SIDE),
    "borders_masked": lambda lungs: regions.borders(SIDE),
    "lungs_hidden": lambda lungs: lungs,
    "lungs_only": lambda lungs: ~lungs,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_pixels_decide_nothing_and_the_others_stay(name):
    lungs = regions.around_lungs(blobs(7))
    region = HIDDEN[name](lungs)
    other = np.where(region, RNG.integers(0, 256, FILM.shape), FILM).astype(np.uint8)
    a, b = changed(name, np.stack([FILM, other]), np.stack([lungs, lungs]))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a[~region], FILM[~region])


def test_corners_and_borders_are_where_they_are_said_to_be():
    corners, borders = regions.corners(100), regions.borders(100)
    assert corners.sum() == 4 * 22 * 22
    assert corners[:22, :22].all()
    assert not corners[:22, 22:78].any()
    assert borders.sum() == 100**2 - 80**2
    assert not borders[10:90, 10:90].any()


def test_the_ellipse_holds_the_centre_and_no_corner():
    ellipse = regions.ellipse(200)
    assert ellipse.mean() == pytest.approx(np.pi * 0.44 * 0.42, rel=0.01)
    assert ellipse[95, 100]
    assert not ellipse[:25, :25].any()


def test_the_region_around_two_lungs_is_convex_and_holds_what_lies_between():
    lungs = np.zeros((100, 100), bool)
    lungs[20:70, 15:40] = lungs[20:70, 60:85] = True
    region = regions.around_lungs(lungs)
    assert region[20:70, 15:85].all()
    assert not region[:17].any()
    assert not region[74:].any()
    assert not regions.around_lungs(np.zeros((9, 9), bool)).any()


def test_levels_shift_and_stretch_about_the_middle_and_saturate():
    film = np.array([[0, 100], [150, 255]], np.uint8)
    lungs = np.zeros((2, 2), bool)
    expected = {
        "darker": [[0, 75], [125, 230]],
        "brighter": [[25, 125], [175, 255]],
        "more_contrast": [[0, 93], [156, 255]],
        "less_contrast": [[26, 106], [146, 230]],
        "flipped": [[100, 0], [255, 150]],
    }
    for name, pixels in expected.items():
        np.testing.assert_array_equal(changed(name, film[None], lungs[None])[0], pixels, name)


def test_the_blur_touches_the_lungs_alone():
    lungs = blobs(2)
    blurred = changed("lungs_blurred", FILM[None], lungs[None])[0]
    np.testing.assert_array_equal(blurred[~lungs], FILM[~lungs])
    sigma = BLUR_FRAC * SIDE
    expected = ndimage.gaussian_filter(FILM.astype(float), sigma, mode="mirror")
    assert np.abs(blurred - expected)[lungs].max() < 4
    assert blurred[lungs].std() < FILM[lungs].std() / 4


def test_half_resolution_keeps_the_large_and_loses_the_small():
    checks = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    halved = changed("half_resolution", np.stack([checks, ramp]), np.zeros((2, 64, 64), bool))
    assert np.ptp(halved[0]) <= 1
    assert np.abs(halved[1].astype(int) - ramp).max() <= 3


@pytest.mark.parametrize("side", [32, 61])
def test_every_change_keeps_type_and_size(side):
    films = RNG.integers(0, 256, (2, side, side)).astype(np.uint8)
    lungs = np.stack([regions.ellipse(side)] * 2)
    for name in CHANGES:
        result = changed(name, films, lungs)
        assert (result.dtype, result.shape) == (np.uint8, films.shape), name
        assert not np.array_equal(result, films), name
