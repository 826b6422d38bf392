"""Boxes and masks on the square that the network sees."""

import numpy as np
import pytest

from fluoroscope.errors import InputError
from fluoroscope.explanation.regions import Box, Mask, film_area, paint
from fluoroscope.files.images import fit_square

SHAPES = [(300, 200), (200, 333), (128, 128), (97, 1024)]


def drawn(shape, box):
    film = np.zeros(shape, np.uint8)
    x, y, width, height = box
    film[y : y + height, x : x + width] = 255
    return film


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size_px", [64, 224, 380])
def test_a_box_lies_where_the_film_is_put(shape, size_px):
    """A film that is white in the box, resized as for the network, is the oracle."""
    box = (shape[1] // 5, shape[0] // 4, shape[1] // 2, shape[0] // 3)
    seen = fit_square(drawn(shape, box), size_px) > 127
    painted = Box(*box).paint(shape, size_px)
    edge = 2 * (seen.any(0).sum() + seen.any(1).sum())
    assert (seen ^ painted).sum() <= edge
    assert (painted & ~film_area(shape, size_px)).sum() == 0
    mask = Mask(lambda: drawn(shape, box) > 0).paint(shape, size_px)
    assert (seen ^ mask).sum() <= edge


@pytest.mark.parametrize("shape", SHAPES)
def test_the_area_of_the_film_is_what_is_not_margin(shape):
    white = fit_square(np.full(shape, 255, np.uint8), 150)
    np.testing.assert_array_equal(film_area(shape, 150), white > 0)


def test_a_box_of_another_frame_is_scaled_to_the_film():
    """NIH's boxes count pixels of 1,024; films may be copies of any size."""
    box = Box(256, 512, 128, 256, frame=(1024, 1024))
    painted = box.paint((320, 320), 64)
    expected = np.zeros((64, 64), bool)
    expected[32:48, 16:24] = True
    np.testing.assert_array_equal(painted, expected)


def test_a_tiny_box_keeps_one_pixel():
    painted = Box(511, 700, 3, 2, frame=(1024, 1024)).paint((1024, 1024), 64)
    assert np.argwhere(painted).tolist() == [[43, 32]]
    assert Box(1022, 1022, 2, 2).paint((1024, 1024), 64).sum() == 1


def test_a_tiny_mask_keeps_one_pixel_and_an_empty_one_none():
    drawn = np.zeros((1024, 1024), bool)
    assert not Mask(lambda: drawn).paint((1024, 1024), 64).any()
    drawn[700, 511] = True
    painted = Mask(lambda: drawn).paint((1024, 1024), 64)
    assert np.argwhere(painted).tolist() == [[43, 31]]


def test_several_boxes_are_one_region():
    boxes = [Box(0, 0, 10, 10), Box(5, 5, 10, 10)]
    assert paint(boxes, (64, 64), 64).sum() == 175


@pytest.mark.parametrize("box", [(900, 10, 300, 20), (-40, 0, 50, 50), (1, 1, 0, 5)])
def test_a_box_outside_the_film_is_refused(box):
    with pytest.raises(InputError, match="does not lie on a film of 1024 x 512 pixels"):
        Box(*box).paint((512, 1024), 64)
