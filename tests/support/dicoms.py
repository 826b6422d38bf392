"""Small DICOM files with every element that decides how their pixels are shown."""

import io
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)


def dicom(
    pixels: np.ndarray,
    bits: int | None = None,
    photometric: str = "MONOCHROME2",
    syntax: UID = ExplicitVRLittleEndian,
    **elements: Any,
) -> FileDataset:
    """A file of one image, in memory.

    Args:
        pixels: stored values, [H, W] or [H, W, 3], of 8 or 16 bits, signed or not.
        bits: bits stored; None: all.
        elements: further elements by keyword, which replace those set here; None takes one away.
    """
    ds = FileDataset("", {}, preamble=b"\0" * 128)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = (
        ComputedRadiographyImageStorage,
        generate_uid(entropy_srcs=["0"]),
    )
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientName = "Nobody^Real"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = 8 * pixels.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    _store(ds, pixels, syntax)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def write_dicom(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    return save(dicom(pixels, **options), path)


def save(ds: FileDataset, path: Any) -> Any:
    if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        dcmwrite(path, ds, implicit_vr=False, little_endian=False, force_encoding=True)
    else:
        ds.save_as(path, enforce_file_format=True)
    return path


def dicom_bytes(ds: FileDataset) -> bytes:
    buffer = io.BytesIO()
    save(ds, buffer)
    return buffer.getvalue()


def lut(table: np.ndarray, first: int, bits: int) -> Dataset:
    """An item of a modality or VOI LUT sequence, its data as numbers if short, else as bytes."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table) % 2**16, first, bits])
    if len(table) > 1000:
        item.add_new("LUTData", "OW", np.asarray(table, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(entry) for entry in table])
    return item


def _store(ds: Dataset, pixels: np.ndarray, syntax: UID) -> None:
    if syntax in (RLELossless, JPEG2000Lossless):
        native = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        ds.compress(syntax, native, encoding_plugin="pylibjpeg", generate_instance_uid=False)
        return
    if syntax.is_encapsulated:
        unsigned = pixels.view(f"u{pixels.itemsize}") & (2**ds.BitsStored - 1)
        data = encapsulate([STREAMS[syntax](unsigned, ds.BitsStored)])
    else:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        data += b"\0" * (len(data) % 2)
    wide = pixels.itemsize == 2 and not syntax.is_encapsulated
    ds.add_new("PixelData", "OW" if wide else "OB", data)
    ds["PixelData"].is_undefined_length = syntax.is_encapsulated


def lossless_jpeg(pixels: np.ndarray, bits: int) -> bytes:
    """A lossless JPEG of one component: differences to the pixel on the left (process 14, SV1).

    Every length of a difference, 0 to 16 bits, has a Huffman code of five bits.

    Source: ITU-T T.81, annex H.
    """
    values = pixels.astype(np.int64) % 2**bits
    before = np.roll(values, 1, axis=1)
    before[1:, 0] = values[:-1, 0]
    before[0, 0] = 2 ** (bits - 1)
    stream = "".join(_difference(int(d)) for d in (values - before).ravel())
    stream += "1" * (-len(stream) % 8)
    coded = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")
    size = b"".join(side.to_bytes(2, "big") for side in values.shape)
    return (
        b"\xff\xd8\xff\xc3\x00\x0b" + bytes([bits]) + size + b"\x01\x01\x11\x00"
        + b"\xff\xc4\x00\x24\x00" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
        + b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + coded + b"\xff\xd9"
    )  # fmt: skip


def predicted_jpeg(pixels: np.ndarray, bits: int, predictor: int = 7) -> bytes:
    """A lossless JPEG with any predictor, 1 to 7, of one or three components."""
    options = {"lossless": True, "bitspersample": bits, "predictor": predictor}
    return imagecodecs.jpeg8_encode(pixels, **options)


def lossy_jpeg(pixels: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, level=100, bitspersample=bits)


STREAMS = {
    JPEGBaseline8Bit: lambda pixels, bits: cv2.imencode(
        ".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100]
    )[1].tobytes(),
    JPEGExtended12Bit: lossy_jpeg,
    JPEGLossless: predicted_jpeg,
    JPEGLosslessSV1: lossless_jpeg,
    JPEGLSLossless: lambda pixels, bits: imagecodecs.jpegls_encode(pixels),
    JPEGLSNearLossless: lambda pixels, bits: imagecodecs.jpegls_encode(pixels, 2),
    HTJ2KLossless: lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=True),
}


def _difference(d: int) -> str:
    d = (d + 2**15) % 2**16 - 2**15
    length = abs(d).bit_length()
    code = f"{length:05b}"
    if length in (0, 16):
        return code
    return code + f"{d if d > 0 else d + 2**length - 1:0{length}b}"
