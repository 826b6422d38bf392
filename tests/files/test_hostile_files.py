"""Damaged and hostile files: each ends in one reason, or in its pixels."""

import gzip
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from fluoroscope.errors import InputError
from fluoroscope.files.images import decode, read_image
from fluoroscope.files.pixels import UnreadableError
from tests.support.dicoms import dicom, dicom_bytes, lossless_jpeg, lut

H, W = 37, 41
GRAY = (np.add.outer(3 * np.arange(H), np.arange(W)) + 9).astype(np.uint8)
DEEP = GRAY.astype(np.uint16) * 16
COLOUR = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1]])


def image(kind, pixels=GRAY, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array, allow_pickle=False):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def npy_header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def dcm(pixels=DEEP, bits=12, **options):
    ds = dicom(pixels, bits, **options)
    return dicom_bytes(ds)


def dcm_kind(uid):
    ds = dicom(DEEP, 12, PixelData=None)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid
    return dicom_bytes(ds)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(size):
    """Deflated zeros."""
    packer, block = zlib.compressobj(1), bytes(2**20)
    parts = [packer.compress(block[: min(2**20, size - done)]) for done in range(0, size, 2**20)]
    return b"".join([*parts, packer.flush()])


def png_bomb(side=12_000):
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zeros(side * (side + 1)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def patched(data, old, new):
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def huge_jpeg():
    size = struct.pack(">HH", H, W)
    return patched(image("JPEG"), size, struct.pack(">HH", 65_500, 65_500))


def huge_tiff():
    """The width and the height are the first two entries of Pillow's directory."""
    tiff = bytearray(image("TIFF"))
    start = struct.unpack_from("<I", tiff, 4)[0] + 2
    for tag in (0, 1):
        assert struct.unpack_from("<H", tiff, start + 12 * tag)[0] == 256 + tag
        struct.pack_into("<HII", tiff, start + 12 * tag + 2, 4, 1, 60_000)
    return bytes(tiff)


def looping_tiff():
    tiff = bytearray(image("TIFF"))
    start = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, start)[0]
    struct.pack_into("<I", tiff, start + 2 + 12 * count, start)
    return bytes(tiff)


def gray_alpha_tiff():
    """Sixteen bits and an alpha channel, which OpenCV would read as eight bits."""
    tags = [(256, 3, 1, W), (257, 3, 1, H), (258, 3, 2, 16 | 16 << 16), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, 1, 150), (277, 3, 1, 2), (278, 3, 1, H)]
    tags += [(279, 4, 1, 4 * H * W), (338, 3, 1, 2)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(150, b"\0") + np.dstack([DEEP, DEEP + 40_000]).astype("<u2").tobytes()


def preview_tiff(*, alone):
    """A thumbnail, followed by the film."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        tiff.write(GRAY[::4, ::4], photometric="minisblack", subfiletype=1)
        if not alone:
            tiff.write(GRAY, photometric="minisblack")
    return buffer.getvalue()


def planes_tiff(kind):
    buffer = io.BytesIO()
    planes = np.stack([DEEP.astype(kind)] * 3)
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate")
    return buffer.getvalue()


def tiff(pixels):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="minisblack")
    return buffer.getvalue()


def floats(keyword, vr, kind):
    ds = dicom(DEEP, 12, PixelData=None)
    ds.add_new(keyword, vr, DEEP.astype(kind).tobytes())
    return dicom_bytes(ds)


def tagged(pixels, syntax, samples, photometric):
    """A compressed image under a header that claims other colours."""
    photometry = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    ds = dicom(pixels, 8, photometric=photometry, syntax=syntax)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, photometric
    ds.PlanarConfiguration = 0
    return dicom_bytes(ds)


def with_thumbnail(jpeg):
    """A JPEG in an APP1 segment, with an end marker of its own."""
    inner = b"Exif\0\0" + image("JPEG", GRAY[::4, ::4])
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + jpeg[2:]


def deflate_bomb():
    whole = dcm(syntax=DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    return whole[:start] + zeros(2**28 + 2**20)[2:]  # without the header that zlib adds


def huge_jpeg2000():
    plain = dcm(syntax=JPEG2000Lossless)
    at = plain.index(b"\xff\x4f\xff\x51") + 8
    return plain[:at] + struct.pack(">2I", 60_000, 60_000) + plain[at + 8 :]


def deep_dicom():
    """A sequence in a sequence, five thousand times."""
    start = dcm()[: dcm().index(b"\x08\0\x16\0UI")]
    inner = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    return start + inner * 5000


def animated(kind):
    frames = [Image.fromarray(GRAY), Image.fromarray(GRAY[::-1])]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


PNG, JPEG, TIFF, BMP = (image(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP"))
TRUNCATED = "the file is truncated"
UNKNOWN = "not an image in a supported format"
DAMAGED = "damaged"
SR, DIRECTORY = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.1.3.10"
REFUSED = {
    "empty.png": (b"", "the file is empty"),
    "cut.png": (lambda: PNG[: len(PNG) // 2], TRUNCATED),
    "start.png": (lambda: PNG[:12], TRUNCATED),
    "end.png": (lambda: PNG[:8] + PNG[-12:], "a PNG without a header"),
    "cut.jpg": (lambda: JPEG[: len(JPEG) // 2], TRUNCATED),
    "cut.tif": (lambda: TIFF[: len(TIFF) // 2], f"{TRUNCATED}|{DAMAGED}"),
    "start.tif": (lambda: TIFF[:6], TRUNCATED),
    "cut.bmp": (lambda: BMP[: len(BMP) // 2], DAMAGED),
    "start.bmp": (lambda: BMP[:20], TRUNCATED),
    "cut.dcm": (lambda: dcm()[:-100], r"pixel data is too short \(2934 of 3034 bytes\)"),
    "cut_jpeg2000.dcm": (lambda: dcm(syntax=JPEG2000Lossless)[:-300], "truncated|damaged"),
    "cut_header.dcm": (lambda: dcm()[:200], "has no pixel data, or is truncated|damaged"),
    "cut.npy": (lambda: npy(GRAY)[:-1], "truncated: its shape needs more data"),
    "crc.png": (lambda: flip(PNG, PNG.index(b"IEND") - 9), DAMAGED),
    "bits.png": (lambda: flip(PNG, 60), DAMAGED),
    "text.png": (b"not an image" * 50, UNKNOWN),
    "error.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", UNKNOWN),
    "film.png.gz": (lambda: gzip.compress(PNG), UNKNOWN),
    "films.zip": (b"PK\3\4" + bytes(100), UNKNOWN),
    "report.pdf": (b"%PDF-1.7\n" + bytes(100), UNKNOWN),
    "animated.png": (lambda: animated("PNG"), "the file is animated; save one image per file"),
    "animated.gif": (lambda: animated("GIF"), UNKNOWN),
    "animated.webp": (lambda: animated("WEBP"), UNKNOWN),
    "random.dcm": (bytes(128) + b"DICM" + np.random.default_rng(0).bytes(500), "DICOM"),
    "pages.tif": (lambda: animated("TIFF"), "the file has 2 pages"),
    "loop.tif": (looping_tiff, "the file has 16 pages"),
    "gray_alpha.tif": (gray_alpha_tiff, "this kind of 16-bit TIFF is not supported"),
    "preview.tif": (lambda: preview_tiff(alone=False), "its first page is a reduced copy"),
    "preview_alone.tif": (lambda: preview_tiff(alone=True), "its first page is a reduced copy"),
    "planes.tif": (lambda: planes_tiff("<u2"), "16-bit colours are in separate planes"),
    "planes_big_endian.tif": (lambda: planes_tiff(">u2"), "16-bit colours are in separate planes"),
    "planes_float.tif": (lambda: planes_tiff("f4"), "32-bit colours are in separate planes"),
    "nan.npy": (lambda: npy(np.where(GRAY > 9, GRAY, np.nan)), "not finite"),
    "inf.npy": (lambda: npy(np.where(GRAY > 9, GRAY, np.inf).astype(np.float32)), "not finite"),
    "wide.npy": (lambda: npy(np.array([[-1e308, 1e308]])), "not finite"),
    "object.npy": (lambda: npy(np.array([[{}]], object), allow_pickle=True), "object values"),
    "complex.npy": (lambda: npy(GRAY * 1j), "complex128 values"),
    "fields.npy": (lambda: npy(np.zeros((3, 3), "i4,f4")), "not numbers"),
    "text.npy": (lambda: npy(np.array([["a", "b"]])), "not numbers"),
    "none.npy": (lambda: npy(np.zeros((0, 5))), r"no pixels \(5 x 0\)"),
    "line.npy": (lambda: npy(np.arange(9)), r"its shape is \(9,\)"),
    "frames.npy": (lambda: npy(np.zeros((2, 3, 5, 7))), r"its shape is \(2, 3, 5, 7\)"),
    "channels.npy": (lambda: npy(np.zeros((5, 7, 2))), r"its shape is \(5, 7, 2\)"),
    "lying.npy": (
        npy_header(b"{'descr':'<f8','fortran_order':False,'shape':(99999,99)}") + bytes(64),
        "truncated: its shape needs more data",
    ),
    "vast.npy": (
        npy_header(b"{'descr':'|u1','fortran_order':False,'shape':(999999,999999)}") + bytes(64),
        "999999 x 999999 pixels are more than 100 million",
    ),
    "negative.npy": (
        npy_header(b"{'descr':'|u1','fortran_order':False,'shape':(-5,-7)}") + bytes(64),
        "no pixels",
    ),
    "code.npy": (npy_header(b"__import__('os').abort()") + bytes(64), "header is damaged"),
    "pickle.npy": (pickle.dumps([1, 2, 3]), UNKNOWN),
    "no_pixels.dcm": (lambda: dcm(PixelData=None), r"has no pixel data.*Computed Radiography"),
    "report.dcm": (lambda: dcm_kind(SR), r"has no pixel data.*Basic Text SR"),
    "DICOMDIR": (lambda: dcm_kind(DIRECTORY), r"has no pixel data.*Media Storage Directory"),
    "gray_or_not.dcm": (
        lambda: dcm(PhotometricInterpretation=None),
        "DICOM file has no Photometric Interpretation$",
    ),
    "odd_colour.dcm": (
        lambda: dcm(photometric="INFRARED"),
        "Interpretation must be one of MONOCHROME1, MON",
    ),
    "no_rows.dcm": (lambda: dcm(Rows=None, Columns=None), "DICOM file has no Rows and no Columns$"),
    "no_bits.dcm": (lambda: dcm(BitsStored=None), "DICOM file has no Bits Stored$"),
    "zero_bits.dcm": (lambda: dcm(BitsStored=0), "its Bits Stored are 0 of 16"),
    "many_bits.dcm": (lambda: dcm(BitsStored=20), "its Bits Stored are 20 of 16"),
    "few_bits.dcm": (lambda: dcm(bits=8), "its pixels need more than its 8 Bits Stored"),
    "high_bit.dcm": (lambda: dcm(HighBit=3), "its High Bit is 3, for 12 Bits Stored"),
    "short.dcm": (lambda: dcm(PixelData=bytes(90)), r"too short \(90 of 3034 bytes\)"),
    "frames.dcm": (lambda: dcm(NumberOfFrames=7), r"multi-frame \(7 frames\)"),
    "samples.dcm": (lambda: dcm(SamplesPerPixel=3), "does not allow 3 samples per pixel"),
    "video.dcm": (
        lambda: patched(dcm(), b"1.2.840.10008.1.2.1", b"1.2.840.10008.9.9.9"),
        r"DICOM data is damaged \(\w+\)$",
    ),
    "rle.dcm": (
        lambda: flip(d := dcm(syntax=RLELossless), len(d) - 200)[:-150],
        "truncated|damaged",
    ),
    "panic.dcm": (lambda: dcm(syntax=RLELossless, Rows=H - 1), r"damaged \(PanicException\)$"),
    "no_kind.dcm": (
        lambda: dcm(PixelData=None).replace(
            ComputedRadiographyImageStorage.encode(), b"Nobody^Real".ljust(25)
        ),
        r"has no pixel data, or is truncated \(of an unknown class\)",
    ),
    "lut.dcm": (
        lambda: dcm(VOILUTSequence=[lut(np.arange(99), 0, 8)]).replace(
            b"\x28\0\x02\x30US\6\0\x63\0", b"\x28\0\x02\x30US\6\0\xff\0"
        ),
        "its VOI LUT has 99 entries; its descriptor says 255",
    ),
    "planes.dcm": (
        lambda: dcm(COLOUR, 8, photometric="RGB", PlanarConfiguration=None),
        "DICOM file has no Planar Configuration",
    ),
    "float.dcm": (
        lambda: floats("FloatPixelData", "OF", "<f4"),
        "^Float Pixel Data is not supported",
    ),
    "double.dcm": (
        lambda: floats("DoubleFloatPixelData", "OD", "<f8"),
        "^Double Float Pixel Data is not supported",
    ),
    "colour_jpeg.dcm": (
        lambda: tagged(COLOUR, JPEGBaseline8Bit, 1, "MONOCHROME2"),
        r"image has 3 samples per pixel, its header says 1 \(MONOCHROME2\)",
    ),
    "colour_jpeg2000.dcm": (
        lambda: tagged(COLOUR, JPEG2000Lossless, 1, "MONOCHROME1"),
        r"image has 3 samples per pixel, its header says 1 \(MONOCHROME1\)",
    ),
    "gray_jpeg.dcm": (
        lambda: tagged(GRAY, JPEGBaseline8Bit, 3, "YBR_FULL_422"),
        r"image has 1 samples per pixel, its header says 3 \(YBR_FULL_422\)",
    ),
    "float16.tif": (lambda: tiff(DEEP.astype("f2")), "a TIFF of 16-bit floating-point numbers"),
    "deep.jpg": (lambda: lossless_jpeg(DEEP, 12), "cannot be decoded: .*precision 12"),
    "extended.jpg": (
        lambda: get_frame(
            dcmread(get_testdata_file("JPGExtended.dcm")).PixelData, 0, number_of_frames=1
        ),
        "cannot be decoded: .*precision 12",
    ),
    "lost.jpg": (lambda: JPEG[:-90] + b"\xff\xd9", "decoder says: .*premature end"),
    "flipped.jpg": (lambda: flip(JPEG, len(JPEG) - 92), "decoder says: Corrupt JPEG data"),
    "thumbnail.jpg": (lambda: with_thumbnail(JPEG)[:-200], TRUNCATED),
    "cut_and_padded.jpg": (lambda: JPEG[: len(JPEG) // 2] + bytes(5000), TRUNCATED),
    "cut_and_filled.jpg": (lambda: JPEG[: len(JPEG) // 2] + b"\xff" * 5000, TRUNCATED),
    "curve.dcm": (
        lambda: dcm(WindowCenter=9, WindowWidth=9, VOILUTFunction="CUBIC"),
        "VOI LUT Function is unknown",
    ),
    "window.dcm": (
        lambda: patched(dcm(WindowCenter="12", WindowWidth="99"), b"12", b"ab"),
        "its Window Center is not a number$",
    ),
    "deep.dcm": (deep_dicom, "DICOM"),
    "other_size.dcm": (
        lambda: dcm(GRAY, 8, syntax=JPEGBaseline8Bit, Rows=H + 1),
        "compressed image has 41 x 37 pixels, its header says 41 x 38",
    ),
    "huge.dcm": (lambda: dcm(Rows=65_000, Columns=65_000), "65000 x 65000 pixels are more than"),
}
BOMBS = {
    "bomb.png": (png_bomb, "12000 x 12000 pixels are more than 100 million"),
    "chunk.png": (lambda: PNG[:33] + b"\x7f\xff\xff\xf0" + PNG[37:], TRUNCATED),
    "huge.jpg": (huge_jpeg, "65500 x 65500 pixels are more than"),
    "huge.tif": (huge_tiff, "60000 x 60000 pixels are more than"),
    "huge.bmp": (
        lambda: BMP[:18] + struct.pack("<2i", 60_000, -60_000) + BMP[26:],
        "60000 x 60000 pixels are more than",
    ),
    "bomb.dcm": (deflate_bomb, "it inflates to more than 256 MiB"),
    "huge_jpeg2000.dcm": (huge_jpeg2000, "compressed image has 60000 x 60000 pixels"),
}
READ = {
    "png.jpg": (PNG, GRAY),
    "tiff.png": (TIFF, GRAY),
    "dicom.png": (lambda: dcm(GRAY, 8), GRAY),
    "npy.dcm": (lambda: npy(GRAY), GRAY),
    "no_suffix": (BMP, GRAY),
    "padded.png": (PNG + bytes(500), GRAY),
    "one.png": (lambda: image("PNG", GRAY[:1, :1]), GRAY[:1, :1]),
    "one.dcm": (lambda: dcm(GRAY[:1, :1], 8), GRAY[:1, :1]),
    "wide.png": (lambda: image("PNG", np.tile(GRAY, (1, 732))), np.tile(GRAY, (1, 732))),
    "high.npy": (lambda: npy(np.tile(GRAY, (811, 1))), np.tile(GRAY, (811, 1))),
}


def write(path, content):
    path.write_bytes(content() if callable(content) else content)
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_end_in_one_reason_with_their_name(tmp_path, name):
    content, reason = REFUSED[name]
    path = write(tmp_path / name, content)
    with pytest.raises(UnreadableError, match=reason) as caught:
        decode(path)
    # The reason is cached, and reports must not name patients.
    assert name not in str(caught.value)
    assert "Nobody" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=rf"^cannot read image .*{name}: "):
        read_image(path)


@pytest.mark.parametrize("name", READ)
def test_odd_files_that_are_images_are_read(tmp_path, name):
    content, expected = READ[name]
    np.testing.assert_array_equal(decode(write(tmp_path / name, content)), expected)


def test_folders_pipes_and_devices_are_refused_without_waiting(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    expected = {
        tmp_path / "folder.png": "a directory, a pipe or a device",
        tmp_path / "pipe.png": "a directory, a pipe or a device",
        Path("/dev/zero"): "a directory, a pipe or a device",
        tmp_path / "loop.png": "too many levels of symbolic links",
        tmp_path / "gone.png": "no such file or directory",
        tmp_path / ("n" * 300): "file name too long",
        f"{tmp_path}/nu\0ll.png": "null character",
    }
    for path, reason in expected.items():
        with pytest.raises(UnreadableError, match=reason):
            decode(path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = write(tmp_path / "secret.png", PNG)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything, so another user tries
        os.seteuid(65534)
    try:
        with pytest.raises(UnreadableError, match="permission denied"):
            decode(path)
    finally:
        os.seteuid(user)


def test_a_file_that_is_too_large_is_not_opened(tmp_path):
    with open(tmp_path / "large.dcm", "wb") as file:
        file.truncate(2**28 + 1)  # a sparse file
    with pytest.raises(UnreadableError, match="larger than 256 MiB"):
        decode(tmp_path / "large.dcm")


LIMITED = """
import resource, sys
from pathlib import Path
import cv2, pydicom
from fluoroscope.files.images import decode
from fluoroscope.files.pixels import UnreadableError
import fluoroscope.files.dicom
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)
for path in sys.argv[1:]:
    try:
        decode(path)
        print("read")
    except UnreadableError as error:
        print(error)
"""


def test_bombs_take_a_bounded_amount_of_memory(tmp_path):
    """A process that may take 700 MiB beyond its libraries; the bombs ask for up to 900 GiB."""
    cases = BOMBS | {name: REFUSED[name] for name in ("huge.dcm", "vast.npy", "lying.npy")}
    paths = [str(write(tmp_path / name, content)) for name, (content, _) in cases.items()]
    run = [sys.executable, "-c", LIMITED, *paths]
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    for (_, reason), line in zip(cases.values(), found, strict=True):
        assert re.search(reason, line)
