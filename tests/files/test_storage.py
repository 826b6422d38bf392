import cv2
import numpy as np
import pytest
from PIL import Image

from fluoroscope.files.storage import Storage, storages
from tests.support.dicoms import write_dicom

EIGHT = np.arange(99, dtype=np.uint8).reshape(9, 11)
SIXTEEN = EIGHT.astype(np.uint16) * 600


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("a.png", EIGHT, Storage("PNG", 8)),
        ("a.png", SIXTEEN, Storage("PNG", 16)),
        ("a.jpg", EIGHT, Storage("JPEG", 8)),
        ("a.bmp", EIGHT, Storage("BMP", 8)),
        ("a.tif", EIGHT, Storage("TIFF", 8)),
        ("a.tif", SIXTEEN, Storage("TIFF", 16)),
        ("a.tif", SIXTEEN.astype(np.float32), Storage("TIFF", 32)),
    ],
)
def test_rasters(tmp_path, name, pixels, expected):
    cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / name).rename(tmp_path / "without_suffix")  # told by the content
    assert storages([str(tmp_path / "without_suffix")]) == [expected]


def test_other_formats(tmp_path):
    np.save(tmp_path / "a.npy", SIXTEEN)
    write_dicom(tmp_path / "a.dcm", SIXTEEN // 16, bits=12)
    Image.fromarray(EIGHT > 40).save(tmp_path / "one.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "text").write_text("no image")
    names = ["a.npy", "a.dcm", "one.png", "bad.png", "text", "missing"]
    found = storages([str(tmp_path / name) for name in names])
    assert found[:3] == [Storage("NumPy", 16), Storage("DICOM", 12), Storage("PNG", 1)]
    assert found[3:] == [Storage()] * 3
