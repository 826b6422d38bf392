"""DICOM files to pixels: one gray frame, as a viewer shows it."""

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import Tag
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
)

from fluoroscope.files import jpeg_streams
from fluoroscope.files.dicom_file import open_dicom
from fluoroscope.files.image_headers import JPEG2000_START, is_whole, stream_size
from fluoroscope.files.jpegs import jpeg_luma
from fluoroscope.files.pixels import UnreadableError, check_size, luma, scale_range
from fluoroscope.files.voi_lut import brightness, stored_range

OVERLAY_BIT_POSITIONS = [Tag(0x6000 + 2 * plane, 0x0102) for plane in range(16)]
NEEDED = {
    "PhotometricInterpretation": "Photometric Interpretation",
    "SamplesPerPixel": "Samples per Pixel",
    "Rows": "Rows",
    "Columns": "Columns",
    "BitsAllocated": "Bits Allocated",
    "BitsStored": "Bits Stored",
    "PixelRepresentation": "Pixel Representation",
}
FLOATS = {"FloatPixelData": "Float", "DoubleFloatPixelData": "Double Float"}
# Named, so that the pixels do not depend on what else is installed.
PLUGINS = {JPEGBaseline8Bit: "pillow"} | dict.fromkeys(jpeg_streams.SYNTAXES, jpeg_streams.PLUGIN)
CODESTREAMS = [*JPEG2000TransferSyntaxes, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K]
PACKAGES = {"pylibjpeg": "pylibjpeg[openjpeg,rle]"}
GRAY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
SAMPLES = dict.fromkeys([*GRAY, PALETTE], 1) | dict.fromkeys(
    ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"],
    3,
)


def decode_dicom(data: bytes) -> np.ndarray:
    """Brightness of a single-frame DICOM file, uint8 [H, W], 0 is dark.

    Gray pixels: see `voi_lut.brightness`. Colours, also those of a palette, become luma.

    Raises:
        UnreadableError: for a file that is damaged, holds no pixels or several frames, or needs a
            codec that is not installed.
    """
    try:
        ds, syntax = open_dicom(data)
        _check(ds)
        pixels = _decode_frame(ds, syntax)
        if ds.PhotometricInterpretation in GRAY:
            return _gray_image(ds, _stored_values(ds, pixels, syntax))
        return _colour_image(ds, pixels)
    except UnreadableError:
        raise
    except BaseException as error:
        # pydicom and its codecs raise errors of any type; one codec raises a panic of Rust.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        # The message of the error may quote the file, and so name the patient.
        raise UnreadableError(f"its DICOM data is damaged ({type(error).__name__})") from error


def dicom_colours(data: bytes) -> np.ndarray | None:
    """Colours of a DICOM file that `decode_dicom` reads, [H, W, 3]; None if its pixels are gray."""
    ds, syntax = open_dicom(data)
    if ds.PhotometricInterpretation in GRAY:
        return None
    pixels = _decode_frame(ds, syntax)
    return apply_color_lut(pixels, ds) if ds.PhotometricInterpretation == PALETTE else pixels


def _check(ds: Dataset) -> None:
    """Refuse files that are not one image, or lack an element that the pixels need."""
    if kinds := [name for keyword, name in FLOATS.items() if keyword in ds]:
        raise UnreadableError(f"{kinds[0]} Pixel Data is not supported, only integer Pixel Data")
    if "PixelData" not in ds:
        kind = ds.file_meta.get("MediaStorageSOPClassUID") or ds.get("SOPClassUID")
        known = kind and kind.name != kind  # a damaged element may quote anything in the file
        name = kind.name if known else "of an unknown class"
        raise UnreadableError(f"the DICOM file has no pixel data, or is truncated ({name})")
    missing = [name for keyword, name in NEEDED.items() if ds.get(keyword) in (None, "")]
    if missing:
        raise UnreadableError(f"the DICOM file has no {' and no '.join(missing)}")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableError(f"the file is multi-frame ({frames} frames); save one image per file")
    samples = SAMPLES.get(str(ds.PhotometricInterpretation))
    if ds.SamplesPerPixel != samples:
        raise UnreadableError(
            f"its Photometric Interpretation does not allow {ds.SamplesPerPixel} samples per pixel"
            if samples
            else f"its Photometric Interpretation must be one of {', '.join(SAMPLES)}"
        )
    check_size(ds.Columns, ds.Rows)
    stored, allocated = ds.BitsStored, ds.BitsAllocated
    if allocated not in (1, 8, 16) or not 1 <= stored <= allocated:
        raise UnreadableError(
            f"its Bits Stored are {stored} of {allocated} allocated; supported: 1 to 16 of 8 or 16"
        )


def _decode_frame(ds: Dataset, syntax: UID) -> np.ndarray:
    """Stored pixels, [H, W], or [H, W, 3] as RGB."""
    decoder, plugin = get_decoder(syntax), PLUGINS.get(syntax, "pylibjpeg")
    if syntax.is_encapsulated and plugin not in decoder.available_plugins:
        raise UnreadableError(
            f"its pixels are compressed as {syntax.name}; "
            f"install '{PACKAGES.get(plugin, plugin)}' to read them"
        )
    if syntax.is_encapsulated:
        if syntax in CODESTREAMS:
            _unwrap(ds)
        _check_stream(ds, syntax)
        ds.PlanarConfiguration = ds.get("PlanarConfiguration") or 0  # the stream has its own order
    elif ds.SamplesPerPixel > 1 and ds.get("PlanarConfiguration") not in (0, 1):
        raise UnreadableError(
            "the DICOM file has no Planar Configuration, the order of its colours"
        )
    elif len(ds.PixelData) < (needed := get_expected_length(ds)):
        raise UnreadableError(
            f"its pixel data is too short ({len(ds.PixelData)} of {needed} bytes)"
        )
    options: dict[str, Any] = {"correct_unused_bits": False}
    if syntax.is_encapsulated:
        options["decoding_plugin"] = plugin
    try:
        return decoder.as_array(ds, index=0, **options)[0]
    except RuntimeError as error:  # raised by the codec
        raise UnreadableError(f"its pixels ({syntax.name}) are damaged") from error


def _unwrap(ds: Dataset) -> None:
    """Take a JPEG 2000 codestream out of a JP2 file, against which some of the decoder's versions
    are not safe (CVE-2025-54874), and whose size is not checked.
    """
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    start = stream.find(JPEG2000_START)
    if start < 0:
        raise UnreadableError("its compressed image is damaged: it is not JPEG 2000")
    if start > 0:
        ds.PixelData = encapsulate([stream[start:]])


def _check_stream(ds: Dataset, syntax: UID) -> None:
    """Refuse a compressed frame whose size is not that of the header, for which its decoder would
    allocate memory, that has other colours, or that is cut off or damaged: most decoders return
    some pixels for it.
    """
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    size = stream_size(stream)
    if size is None:
        return
    if size[:2] != (ds.Columns, ds.Rows):
        raise UnreadableError(
            f"its compressed image has {size.width} x {size.height} pixels, its header says "
            f"{ds.Columns} x {ds.Rows}"
        )
    if size.colours != ds.SamplesPerPixel:
        raise UnreadableError(
            f"its compressed image has {size.colours} samples per pixel, its header says "
            f"{ds.SamplesPerPixel} ({ds.PhotometricInterpretation})"
        )
    if not is_whole(stream):
        raise UnreadableError("its compressed image is truncated")
    if syntax == JPEGBaseline8Bit:
        jpeg_luma(stream)


def _stored_values(ds: Dataset, pixels: np.ndarray, syntax: UID) -> np.ndarray:
    """Pixels without the bits outside Bits Stored, signed or not, [H, W].

    Some writers set High Bit to the highest bit of the word although the value lies in the lowest
    bits. This is so if each value fits into the lowest bits and some use those below the declared
    ones: shifting would divide the values by 16, say, and lose their last bits.

    Raises:
        UnreadableError: for values that need more bits than are stored, unless an overlay plane
            lies in those bits.

    Source: DICOM PS3.5 8.1.1.
    """
    stored, allocated = ds.BitsStored, 8 * pixels.itemsize
    high = stored - 1 if syntax.is_encapsulated else ds.get("HighBit", stored - 1)
    if not stored - 1 <= high < allocated:
        raise UnreadableError(f"its High Bit is {high}, for {stored} Bits Stored")
    # The bits above a signed value may repeat its sign, or not.
    fits = pixels.min() >= stored_range(ds)[0] and pixels.max() < 2**stored
    overlaid = any(ds.get(tag) for tag in OVERLAY_BIT_POSITIONS)
    if fits and not overlaid and (pixels % 2 ** (high - stored + 1)).any():
        high = stored - 1
    if high == stored - 1 and not fits and not overlaid:
        raise UnreadableError(f"its pixels need more than its {stored} Bits Stored")
    return (pixels << (allocated - 1 - high)) >> (allocated - stored)


def _gray_image(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    low = int(stored.min())
    index = stored.astype(np.int32) - low
    counts = np.bincount(index.ravel())
    gray = brightness(ds, np.arange(low, low + len(counts)), counts)
    return np.rint(255 * gray).astype(np.uint8)[index]


def _colour_image(ds: Dataset, pixels: np.ndarray) -> np.ndarray:
    if ds.PhotometricInterpretation == PALETTE:
        pixels = apply_color_lut(pixels, ds)
    return scale_range(luma(pixels))
