import cv2
import numpy as np
import pytest

from fluoroscope.build import build_studies
from tests.support.films import config

SLOPE = np.add.outer(np.arange(100), np.arange(100))  # 0 to 198


def outlier(film, value):
    film = film.copy()
    film[5:9, 5:9] = value
    return film


def told(root, pixels):
    """What is said of a collection of a film and these pixels, but that patients are unknown."""
    for name, film in (("normal/1.png", CLEAR["film"]), ("sick/2.png", pixels)):
        (root / name).parent.mkdir()
        cv2.imwrite(str(root / name), film)
    studies = build_studies(config("data=folder", f"data.root={root}"), split=False)
    return [decision.describe() for decision in studies.decisions[1:]]


FLAT = {
    "narrow window": (SLOPE // 20 + 100).astype(np.uint8),
    "12 bits with a bright spot of 16": outlier((SLOPE * 20).astype(np.uint16), 65535),
    "black spot": outlier((65535 - SLOPE * 20).astype(np.uint16), 0),
}
CLEAR = {
    "film": SLOPE.astype(np.uint8),
    "12 bits": (SLOPE * 20).astype(np.uint16),
    "two grays": np.where(SLOPE > 90, 255, 0).astype(np.uint8),
    "wide margin": np.pad(SLOPE, ((0, 0), (100, 200))).astype(np.uint8),
}


@pytest.mark.parametrize("pixels", FLAT.values(), ids=FLAT)
def test_images_of_hardly_any_contrast_are_told(tmp_path, pixels):
    few = "images with 95% of their pixels within 17 grays: kept (images 1)"
    assert told(tmp_path, pixels) == [few]


@pytest.mark.parametrize("pixels", CLEAR.values(), ids=CLEAR)
def test_other_images_are_not(tmp_path, pixels):
    assert told(tmp_path, pixels) == []
