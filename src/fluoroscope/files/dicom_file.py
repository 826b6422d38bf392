"""Open DICOM files, whole or their header alone."""

import io
import logging
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, config, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from fluoroscope.files.images import is_dicom
from fluoroscope.files.pixels import MAX_BYTES, UnreadableError

META_BYTES = 4096  # the transfer syntax stands in them
# Messages of pydicom quote invalid values, such as a patient's number, and do not name the file.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="pydicom")


def open_dicom(data: bytes) -> tuple[Dataset, UID]:
    """The elements of a DICOM file, and the transfer syntax of its pixels.

    Raises:
        UnreadableError: for a deflated file that inflates to more than `MAX_BYTES`.
        Exception: of any type, for a damaged file.
    """
    file = io.BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=_is_behind_meta)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        body = io.BytesIO(_inflate(file.read()))
        ds = read_dataset(body, False, True)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return ds, ExplicitVRLittleEndian
    ds = dcmread(io.BytesIO(data), force=True)
    return ds, ds.file_meta.get("TransferSyntaxUID") or _guess_syntax(ds)


def read_header(path: str | Path, keywords: Sequence[str]) -> tuple[str, ...]:
    """The text of elements of a DICOM file, read without its pixels; "" for one that it lacks.

    All are "" for another format and for a damaged file: the survey of the images says why.

    Args:
        path: the file.
        keywords: of the elements, such as `PatientID`.
    """
    try:
        ds = _read_elements(path, keywords) if os.path.isfile(path) else Dataset()
        return tuple(str(ds.get(keyword) or "").strip() for keyword in keywords)
    except Exception:  # of any type
        return ("",) * len(keywords)


def _read_elements(path: str | Path, keywords: Sequence[str]) -> Dataset:
    with open(path, "rb") as file:
        start = file.read(META_BYTES)
        if not is_dicom(start):
            return Dataset()
        if DeflatedExplicitVRLittleEndian.encode() in start:  # its header is inflated with the rest
            return open_dicom(start + file.read(MAX_BYTES))[0]
        file.seek(0)
        return dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(keywords))


def _is_behind_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _inflate(packed: bytes) -> bytes:
    """Inflate a file up to `MAX_BYTES`; pydicom would inflate it without a limit."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    data = stream.decompress(packed, MAX_BYTES)
    if stream.unconsumed_tail:
        raise UnreadableError(f"it inflates to more than {MAX_BYTES // 2**20} MiB")
    return data


def _guess_syntax(ds: Dataset) -> UID:
    implicit, little = ds.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
