"""JPEG streams of DICOM files against their pixels, whole and damaged."""

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from fluoroscope.files.dicom import decode_dicom
from fluoroscope.files.images import decode
from fluoroscope.files.jpeg_streams import decode_jpeg_stream
from fluoroscope.files.pixels import UnreadableError
from tests.support.dicoms import (
    dicom,
    dicom_bytes,
    lossless_jpeg,
    lossy_jpeg,
    predicted_jpeg,
    write_dicom,
)

H, W = 37, 41


def pixels(bits, shape=(H, W)):
    """A ramp with noise, which uses every bit."""
    ramp = np.arange(H * W).reshape(H, W, *[1] * (len(shape) - 2))
    noise = np.random.default_rng(bits).integers(0, 2**bits, shape) // 3
    return ((ramp + noise) % 2**bits).astype(np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("bits", range(2, 17))
def test_a_lossless_stream_of_every_precision(bits):
    stored = pixels(bits)
    np.testing.assert_array_equal(decode_jpeg_stream(lossless_jpeg(stored, bits), 1), stored)


@pytest.mark.parametrize("shape", [(H, W), (H, W, 3)])
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_a_lossless_stream_of_every_predictor(predictor, bits, shape):
    stored = pixels(bits, shape)
    colours = len(shape[2:]) * 3 or 1
    found = decode_jpeg_stream(predicted_jpeg(stored, bits, predictor), colours)
    np.testing.assert_array_equal(found, stored)


def test_twelve_bits_of_another_writer():
    """Two files of one image; the second has a scan header that some decoders refuse."""
    shown = decode(get_testdata_file("JPGExtended.dcm"))
    np.testing.assert_array_equal(decode(get_testdata_file("JPEG-lossy.dcm")), shown)
    lossless = decode(get_testdata_file("JPEG-LL.dcm"))
    assert np.corrcoef(shown.ravel(), lossless.ravel())[0, 1] > 0.98
    smooth = (np.add.outer(40 * np.arange(H), 20 * np.arange(W)) + 900).astype(np.uint16)
    found = decode_jpeg_stream(lossy_jpeg(smooth, 12), 1)
    np.testing.assert_allclose(found.astype(int), smooth, atol=2)


def test_a_jpeg_ls_frame_of_twelve_bits():
    packed, plain = (
        dcmread(get_testdata_file(name, download=False))
        for name in ("emri_small_jpeg_ls_lossless.dcm", "emri_small.dcm")
    )
    stream = get_frame(packed.PixelData, 3, number_of_frames=10)
    stored = plain.pixel_array[3]
    window = {"WindowCenter": 200, "WindowWidth": 400}
    ds = dicom(stored, 12, syntax=JPEGLSLossless, **window)
    ds.PixelData = encapsulate([stream])
    shown = decode_dicom(dicom_bytes(dicom(stored, 12, **window)))
    np.testing.assert_array_equal(decode_dicom(dicom_bytes(ds)), shown)
    assert len(np.unique(shown)) > 50


UNUSUAL = {
    "one pixel": (np.full((1, 1), 7, np.uint16), b"", b""),
    "one row": (pixels(12)[:1], b"", b""),
    "one value": (np.full((H, W), 700, np.uint16), b"", b""),
    "black": (np.zeros((H, W), np.uint16), b"", b""),
    "two values": (np.eye(H, W, dtype=np.uint16), b"", b""),
    "a black half": (np.where(np.arange(H)[:, None] < 20, pixels(12), 0), b"", b""),
    "fill bytes": (pixels(12), b"\xff" * 40, b""),
    "some zeros": (pixels(12), b"\0" * 7, b""),
    "a second end": (pixels(12), b"", b"\0\xff\xd9" * 30),
    "bytes behind": (pixels(12), b"", bytes(3000)),
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("write", [lossless_jpeg, predicted_jpeg])
def test_unusual_streams_that_are_whole(write, name):
    stored, before, behind = UNUSUAL[name]
    stream = write(stored, 12)
    stream = stream[:-2] + before + stream[-2:] + behind
    np.testing.assert_array_equal(decode_jpeg_stream(stream, 1), stored)


@pytest.mark.parametrize("name", ["one value", "a black half", "fill bytes", "bytes behind"])
def test_unusual_streams_of_twelve_bits_that_are_whole(name):
    stored, before, behind = UNUSUAL[name]
    stream = lossy_jpeg(stored, 12)
    plain = decode_jpeg_stream(stream, 1)
    again = decode_jpeg_stream(stream[:-2] + before + stream[-2:] + behind, 1)
    np.testing.assert_array_equal(again, plain)
    np.testing.assert_allclose(plain.astype(int), stored, atol=3)


LOST = {
    "cut": lambda stream, at: stream[:at] + stream[-2:],
    "cut out": lambda stream, at: stream[: at - 90] + stream[at:],
    "doubled": lambda stream, at: stream[:at] + stream[at - 90 :],
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("write", [lossless_jpeg, predicted_jpeg, lossy_jpeg])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_streams_that_end_correctly_but_lost_pixels(write, part, how):
    if how == "doubled" and write is lossy_jpeg:
        pytest.skip("its blocks may take up what was doubled")
    stream = write(pixels(12), 12)
    with pytest.raises((ValueError, RuntimeError)):
        decode_jpeg_stream(LOST[how](stream, int(part * len(stream))), 1)


def mutated(stream, rng):
    """Bytes replaced, anywhere or near the header, cut out, inserted, or the rest lost."""
    data, kind = bytearray(stream), rng.integers(5)
    at, more = int(rng.integers(2, len(data))), rng.bytes(int(rng.integers(1, 40)))
    if kind < 2:
        for place in rng.integers(2, len(data) if kind else min(len(data), 220), 3):
            data[place] = rng.integers(256)
    elif kind == 2:
        del data[at : at + len(more)]
    elif kind == 3:
        data[at:at] = more
    else:
        data = data[:at] + b"\xff\xd9"
    return bytes(data)


@pytest.mark.parametrize(
    "syntax",
    [
        *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
        *(JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, RLELossless),
    ],
)
@pytest.mark.parametrize("colours", [1, 3])
def test_damaged_streams_end_in_one_reason(syntax, colours):
    """And not in the end of the process."""
    if colours == 3 and syntax in (JPEGLosslessSV1, JPEGBaseline8Bit):
        pytest.skip("these writers are for gray pixels")
    bits = 8 if syntax == JPEGBaseline8Bit or colours == 3 else 12
    stored = pixels(bits, (H, W, 3) if colours == 3 else (H, W))
    ds = dicom(stored, bits, "RGB" if colours == 3 else "MONOCHROME2", syntax=syntax)
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    reasons = []
    for seed in range(60):
        ds.PixelData = encapsulate([mutated(stream, np.random.default_rng(seed))])
        try:
            assert decode_dicom(dicom_bytes(ds)).shape == (H, W)
        except UnreadableError as error:
            reasons.append(str(error))
    assert len(reasons) > 20
    assert not any("\n" in reason for reason in reasons)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLossless, JPEGExtended12Bit])
def test_a_stream_of_more_bits_than_its_header_says_is_refused(syntax):
    ds = dicom(pixels(12), 12, syntax=syntax)
    ds.BitsStored, ds.HighBit = 8, 7
    with pytest.raises(UnreadableError, match="its pixels need more than its 8 Bits Stored"):
        decode_dicom(dicom_bytes(ds))


def test_a_stream_of_fewer_bits_than_its_header_says_keeps_its_values():
    stored, window = pixels(8), {"WindowCenter": 128, "WindowWidth": 256}
    ds = dicom(stored.astype(np.uint16), 12, syntax=JPEGLossless, **window)
    ds.PixelData = encapsulate([predicted_jpeg(stored, 8)])
    np.testing.assert_array_equal(decode_dicom(dicom_bytes(ds)), stored)


def test_signed_values_of_a_lossless_jpeg(tmp_path):
    stored = pixels(12).astype(np.int16) - 2048
    window = {"WindowCenter": -200, "WindowWidth": 3000}
    shown = decode(write_dicom(tmp_path / "a", stored, bits=12, **window))
    for syntax in (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless):
        path = write_dicom(tmp_path / "b", stored, bits=12, syntax=syntax, **window)
        np.testing.assert_array_equal(decode(path), shown)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_jp2_file_is_read_as_the_codestream_in_it(bits):
    """Its size is checked, and its headers reach no decoder."""
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    ds = dicom(pixels(bits), bits, syntax=JPEG2000Lossless, **window)
    shown = decode_dicom(dicom_bytes(ds))
    options = {"level": 0, "reversible": True, "bitspersample": bits, "codecformat": "jp2"}
    wrapped = imagecodecs.jpeg2k_encode(pixels(bits), **options)
    assert wrapped[4:8] == b"jP  "
    ds.PixelData = encapsulate([wrapped])
    np.testing.assert_array_equal(decode_dicom(dicom_bytes(ds)), shown)
    ds.PixelData = encapsulate([wrapped[:12] + b"\0\0\0\x14ftypjp2 "])
    with pytest.raises(UnreadableError, match="it is not JPEG 2000"):
        decode_dicom(dicom_bytes(ds))
    ds.PixelData = encapsulate([wrapped])
    ds.Rows = H - 1
    with pytest.raises(
        UnreadableError, match=f"has {W} x {H} pixels, its header says {W} x {H - 1}"
    ):
        decode_dicom(dicom_bytes(ds))
