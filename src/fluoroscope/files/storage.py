"""The format and bit depth of image files, read from their headers without decoding pixels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from fluoroscope.files.arrays import NUMPY_START
from fluoroscope.files.image_headers import JPEG_START
from fluoroscope.files.images import is_dicom
from fluoroscope.files.rasters import BMP_START, PNG_START, TIFF_STARTS

HEAD_BYTES = 512
BITS_PER_SAMPLE = 258  # a tag of TIFF


class Storage(NamedTuple):
    """Format and bits per sample of a file, such as ("PNG", 16); ("", 0) if they are unknown."""

    format: str = ""
    bits: int = 0


def storages(paths: Sequence[str]) -> list[Storage]:
    """The storage of each file; an unreadable one is unknown."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_storage, paths))


def _storage(path: str) -> Storage:
    try:
        with open(path, "rb") as file:
            return _of_header(path, file.read(HEAD_BYTES))
    except Exception:  # of any type; the survey of all images reports what is wrong with the file
        return Storage()


def _of_header(path: str, head: bytes) -> Storage:
    if head.startswith(PNG_START):
        return Storage("PNG", head[24])
    if head.startswith(JPEG_START):
        return Storage("JPEG", 8)
    if head.startswith(BMP_START):
        return Storage("BMP", 8)
    if head.startswith(NUMPY_START):
        return Storage("NumPy", 8 * np.load(path, mmap_mode="r", allow_pickle=False).itemsize)
    if head.startswith(TIFF_STARTS):
        with Image.open(path) as image:
            return Storage("TIFF", int(image.tag_v2[BITS_PER_SAMPLE][0]))  # type: ignore[attr-defined]
    return Storage("DICOM", _dicom_bits(path)) if is_dicom(head) else Storage()


def _dicom_bits(path: str) -> int:
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True, specific_tags=["BitsStored"], force=True)
    return int(header.get("BitsStored", 0))
