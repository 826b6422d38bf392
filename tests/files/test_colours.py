import io

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from fluoroscope.files.arrays import gray_array
from fluoroscope.files.colours import array_colour_frac, colour_frac
from fluoroscope.files.pixels import UnreadableError

RAMP = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (400, 1))


def stored(pixels, kind, **options):
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "npy"])
def test_gray_pixels_stored_as_colours_are_gray(kind):
    assert colour_frac(stored(RAMP, kind)) == 0
    assert colour_frac(stored(np.dstack([RAMP] * 3), kind)) < 0.01


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "npy"])
def test_the_share_of_coloured_pixels_is_that_which_was_painted(kind):
    painted = np.dstack([RAMP] * 3)
    painted[:100] = 200, 30, 60  # a quarter
    assert colour_frac(stored(painted, kind)) == pytest.approx(0.25, abs=0.02)


def test_palettes_and_deep_colours_are_seen():
    painted = np.dstack([RAMP] * 3)
    painted[:, :320] = 10, 200, 60
    palette = Image.fromarray(painted).quantize(16)
    file = io.BytesIO()
    palette.save(file, "PNG")
    assert colour_frac(file.getvalue()) == pytest.approx(0.5, abs=0.02)
    deep = cv2.imencode(".png", painted[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    assert colour_frac(deep) == pytest.approx(0.5, abs=0.02)
    assert array_colour_frac(painted / 255) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("name", "is_colour"),
    [("RG1_UNCR.dcm", False), ("SC_rgb.dcm", True), ("OT-PAL-8-face.dcm", True)],
)
def test_the_colours_of_dicom_files_are_seen(name, is_colour):
    with open(get_testdata_file(name), "rb") as file:
        assert (colour_frac(file.read()) > 0.2) == is_colour


def test_a_damaged_file_has_no_known_colours():
    assert np.isnan(colour_frac(stored(np.dstack([RAMP] * 3), "JPEG")[:300]))
    assert np.isnan(colour_frac(b"\x93NUMPY"))


def test_arrays_in_memory_become_the_pixels_of_their_files(tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 4000, (5, 7)).astype(np.int16)
    wanted = np.rint((deep - deep.min()) * (255 / (deep.max() - deep.min())))
    assert (gray_array(deep) == wanted).all()
    assert (gray_array(deep[None]) == wanted).all()
    with pytest.raises(UnreadableError, match="shape"):
        gray_array(rng.random((2, 3, 4, 5)))
    with pytest.raises(UnreadableError, match="no pixels"):
        gray_array(np.zeros((0, 4)))
    with pytest.raises(UnreadableError, match="not numbers"):
        gray_array(np.array([["a"]]))
