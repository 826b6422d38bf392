"""The kind of a file, told by its first bytes."""

import struct

from fluoroscope.files.arrays import NUMPY_START
from fluoroscope.files.image_headers import JPEG2000_START, JPEG_START
from fluoroscope.files.images import is_dicom
from fluoroscope.files.rasters import BMP_START, PNG_START, TIFF_STARTS

HEAD_BYTES = 348  # a header of NIfTI ends with its name
IMAGE = "image"  # of a format that `images.decode` reads
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes in bytes
_FOREIGN = {
    "GIF": (b"GIF87a", b"GIF89a"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000_START),
    "NRRD": (b"NRRD",),
    "HDF5": (b"\x89HDF",),
}

NOT_READ = (*_FOREIGN, "WebP", "HEIC or AVIF", "NIfTI")  # formats of images that no reader takes


def kind_of(head: bytes) -> str:
    """`IMAGE`, the name of a format of images that is not read, such as "WebP", or "".

    Args:
        head: the first `HEAD_BYTES` of a file, or the whole of a shorter one.

    >>> kind_of(b"GIF89a...")
    'GIF'
    """
    if head.startswith((PNG_START, JPEG_START, NUMPY_START, *TIFF_STARTS)) or is_dicom(head):
        return IMAGE
    if head.startswith(BMP_START) and len(head) >= 18:
        return IMAGE if struct.unpack_from("<I", head, 14)[0] in _BMP_HEADERS else ""
    return _foreign(head)


def _foreign(head: bytes) -> str:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return "HEIC or AVIF" if head[8:12] in (b"heic", b"heix", b"mif1", b"avif") else ""
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        return "NIfTI"
    return next((name for name, starts in _FOREIGN.items() if head.startswith(starts)), "")
