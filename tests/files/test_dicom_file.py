"""Elements of DICOM headers, read without the pixels."""

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from fluoroscope.files.dicom_file import read_header
from tests.files.test_hostile_files import deflate_bomb
from tests.support.dicoms import write_dicom

PIXELS = np.arange(37 * 41, dtype=np.uint16).reshape(37, 41)
ASKED = ["PatientID", "ViewPosition", "PatientSex", "PatientAge"]
SYNTAXES = [
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian),
    *(DeflatedExplicitVRLittleEndian, JPEG2000Lossless),
]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_elements_of_every_syntax(tmp_path, syntax):
    elements = {"PatientID": " 0042 ", "ViewPosition": "PA", "PatientAge": "057Y"}
    path = write_dicom(tmp_path / "a", PIXELS, syntax=syntax, **elements)
    assert read_header(path, ASKED) == ("0042", "PA", "", "057Y")


def test_a_file_without_a_preamble_or_with_a_foreign_name_has_its_header_read(tmp_path):
    whole = write_dicom(tmp_path / "film.png", PIXELS, PatientID="P1")
    assert read_header(whole, ["PatientID"]) == ("P1",)
    (tmp_path / "bare").write_bytes(whole.read_bytes()[132:])
    assert read_header(tmp_path / "bare", ["PatientID"]) == ("P1",)


@pytest.mark.parametrize(
    "content",
    [b"", b"not DICOM" * 99, bytes(128) + b"DICM" + b"\xff" * 99, deflate_bomb],
    ids=["empty", "text", "damaged", "bomb"],
)
def test_a_file_that_cannot_be_read_has_no_elements(tmp_path, content):
    (tmp_path / "a").write_bytes(content() if callable(content) else content)
    assert read_header(tmp_path / "a", ASKED) == ("",) * 4
    assert read_header(tmp_path / "missing", ASKED) == ("",) * 4
    assert read_header(tmp_path, ASKED) == ("",) * 4
