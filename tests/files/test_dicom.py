"""DICOM pixels against the formulas of PS3.3 as they are printed, one value at a time."""

import io
import math

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from fluoroscope.files import dicom as module
from fluoroscope.files.images import decode
from fluoroscope.files.pixels import UnreadableError
from tests.support.dicoms import STREAMS, dicom, lut, save, write_dicom

H, W = 37, 41
STORED = [(8, "u1"), (8, "i1"), (10, "u2"), (12, "u2"), (12, "i2"), (16, "u2"), (16, "i2")]


def ramp(bits, kind, rows=H):
    """Every part of the range of the stored bits, in no order. [37, 41]"""
    low = -(2 ** (bits - 1)) if kind[0] == "i" else 0
    values = np.linspace(low + 1, low + 2**bits - 2, rows * W).round().astype(kind)
    return np.random.default_rng(0).permutation(values).reshape(rows, W)


def linear(x, c, w):  # C.11.2.1.2.1
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 255.0
    return ((x - (c - 0.5)) / (w - 1) + 0.5) * 255


def linear_exact(x, c, w):  # C.11.2.1.3.2
    if x <= c - w / 2:
        return 0.0
    if x > c + w / 2:
        return 255.0
    return ((x - c) / w + 0.5) * 255


def sigmoid(x, c, w):  # C.11.2.1.3.1
    return 255 / (1 + math.exp(-4 * (x - c) / w))


def looked_up(x, table, first):  # C.11.1.1 and C.11.2.1.1
    if x < first:
        return float(table[0])
    return float(table[min(int(x) - first, len(table) - 1)])


FUNCTIONS = {"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}


def modality_of(name, stored, bits):
    """Elements of a modality LUT module, and each pixel's value by hand."""
    low = int(stored.min())
    if name == "lut":
        size = min(2**bits // 2, 20_000)  # shorter than the range: both ends are used
        table = np.sqrt(np.arange(size) / (size - 1)) * 4095
        table = table.round().astype(int)
        values = [looked_up(x, table, low + 20) for x in stored.ravel().tolist()]
        return {"ModalityLUTSequence": [lut(table, low + 20, 12)]}, values
    slope, intercept = {"none": (1, 0), "rescale": (2.5, -1024), "falling": (-1, 4095)}[name]
    elements = {} if name == "none" else {"RescaleSlope": slope, "RescaleIntercept": intercept}
    return elements, [x * slope + intercept for x in stored.ravel().tolist()]


def voi_of(name, values, bits):
    """Elements of a VOI LUT module, and each pixel's brightness by hand."""
    low, high = min(values), max(values)
    if name in FUNCTIONS:
        c, w = round((low + high) / 2, 2), round((high - low) / 3, 2)
        elements = {"WindowCenter": [c, 0], "WindowWidth": [w, 9], "VOILUTFunction": name}
        return elements, [FUNCTIONS[name](x, c, w) for x in values]
    if name == "lut":  # and a window, which must not count
        table, first = (np.arange(100) ** 2 * 1023 // 99**2), max(int(low) + 10, -(2**15))
        shown = [looked_up(round(x), table, first) / 1023 * 255 for x in values]
        return {
            "VOILUTSequence": [lut(table, first, 10)],
            "WindowCenter": 1,
            "WindowWidth": 2,
        }, shown
    ordered = sorted(values)
    low, high = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.005, 0.995))
    return {}, [min(max((x - low) / (high - low), 0), 1) * 255 for x in values]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("voi", [*FUNCTIONS, "lut", "none"])
@pytest.mark.parametrize("modality", ["none", "rescale", "falling", "lut"])
@pytest.mark.parametrize(("bits", "kind"), STORED)
def test_gray_is_what_the_standard_says(tmp_path, bits, kind, modality, voi, photometric):
    stored = ramp(bits, kind)
    first, values = modality_of(modality, stored, bits)
    second, shown = voi_of(voi, values, bits)
    if voi == "none" and bits == 8 and modality != "lut":
        low, high = (0, 255) if kind[0] == "u" else (-128, 127)
        scale = {"rescale": (2.5, -1024), "falling": (-1, 4095)}.get(modality, (1, 0))
        low, high = sorted(x * scale[0] + scale[1] for x in (low, high))
        shown = [(x - low) / (high - low) * 255 for x in values]
    if photometric == "MONOCHROME1":
        shown = [255 - x for x in shown]
    options = {"bits": bits, "photometric": photometric, **first, **second}
    pixels = decode(write_dicom(tmp_path / "a", stored, **options))
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, np.reshape(shown, (H, W)), atol=0.5 + 1e-9)


LOSSLESS = [
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
]
SYNTAXES = [(u, b, k) for u in LOSSLESS for b, k in STORED]


@pytest.mark.parametrize(("syntax", "bits", "kind"), SYNTAXES, ids=str)
def test_every_lossless_syntax_gives_the_uncompressed_pixels(tmp_path, syntax, bits, kind):
    stored, window = ramp(bits, kind), {"WindowCenter": 20, "WindowWidth": 2**bits / 3}
    if kind[0] == "u":
        window["WindowCenter"] += 2 ** (bits - 1)
    shown = decode(write_dicom(tmp_path / "a", stored, bits=bits, **window))
    packed = write_dicom(tmp_path / "b", stored, bits=bits, syntax=syntax, **window)
    np.testing.assert_array_equal(decode(packed), shown)
    assert len(np.unique(shown)) > 50


def film(name):
    return get_testdata_file(name, download=False)


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb.dcm"),  # lossless
        ("RG1_J2KR.dcm", "RG1_UNCR.dcm"),
        ("RG1_J2KI.dcm", "RG1_UNCI.dcm"),  # what the lossy stream was decoded to
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
    ],
)
def test_files_of_other_writers_decode_to_the_same_array(packed, plain):
    np.testing.assert_array_equal(decode(film(packed)), decode(film(plain)))


def test_lossy_files_come_near(tmp_path):
    near = np.abs(decode(film("RG1_J2KI.dcm")).astype(int) - decode(film("RG1_UNCR.dcm")))
    assert 0 < near.max() <= 3
    smooth = (np.add.outer(np.arange(H), 2 * np.arange(W)) + 30).astype(np.uint8)
    lossy = decode(write_dicom(tmp_path / "a", smooth, syntax=JPEGBaseline8Bit))
    np.testing.assert_allclose(lossy.astype(int), smooth, atol=2)


def test_a_real_film_has_the_right_polarity():
    """RG1 is MONOCHROME1: as stored, its lungs are the brightest part."""
    shown = decode(film("RG1_UNCR.dcm")).astype(float)
    stored = pydicom.dcmread(film("RG1_UNCR.dcm")).pixel_array
    lungs = [np.s_[400:520, 330:600], np.s_[300:500, 1100:1400]]
    mediastinum, air = np.s_[700:1100, 870:960], np.s_[60:120, 60:200]
    for lung in lungs:
        assert shown[mediastinum].mean() > shown[lung].mean() + 60
        assert shown[lung].mean() > shown[air].mean() + 30
        assert stored[mediastinum].mean() < stored[lung].mean()
    expected = [255 - linear(x, 15000, 30000) for x in stored[::97, ::97].ravel().tolist()]
    np.testing.assert_allclose(shown[::97, ::97].ravel(), expected, atol=0.5 + 1e-9)


def bt601(rgb):
    return rgb[..., :3].astype(float) @ [0.299, 0.587, 0.114]


def test_colour_becomes_luma(tmp_path):
    planes = [ramp(8, "u1"), ramp(8, "u1")[::-1], ramp(8, "u1")[:, ::-1]]
    rgb = np.stack(planes, axis=-1)
    shown = decode(write_dicom(tmp_path / "a", rgb, photometric="RGB"))
    np.testing.assert_allclose(shown, bt601(rgb), atol=1)
    for syntax in (RLELossless, ExplicitVRBigEndian):
        other = write_dicom(tmp_path / "b", rgb, photometric="RGB", syntax=syntax)
        np.testing.assert_array_equal(decode(other), shown)
    ybr = (rgb / 4 + 90).astype(np.uint8)  # colours that exist
    shown = decode(write_dicom(tmp_path / "c", ybr, photometric="YBR_FULL"))
    np.testing.assert_allclose(shown, ybr[..., 0], atol=1)  # Y is the luma
    deep = (rgb.astype(np.uint16) << 4) + 7
    shown = decode(write_dicom(tmp_path / "d", deep, bits=12, photometric="RGB"))
    expected = bt601(deep)
    scale = 255 / (expected.max() - expected.min())
    np.testing.assert_allclose(shown, (expected - expected.min()) * scale, atol=1)


def test_a_palette_becomes_luma(tmp_path):
    stored = ramp(8, "u1")
    palette = np.stack([np.arange(256)[::-1], np.arange(256) // 2, np.full(256, 9)], axis=-1)
    elements = {}
    for name, column in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        data = column.astype(np.uint8).tobytes()
        elements[f"{name}PaletteColorLookupTableData"] = data
    shown = decode(write_dicom(tmp_path / "a", stored, photometric="PALETTE COLOR", **elements))
    np.testing.assert_allclose(shown, bt601(palette)[stored], atol=1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_padding_is_dark_and_sets_no_scale(tmp_path, kind, photometric):
    inner = ramp(12, kind)[2:-2, 3:-3] // 4
    pad = 4000 if kind == "u2" else -2000
    stored = np.pad(inner, ((2, 2), (3, 3)), constant_values=pad)
    stored[0] = pad + 5
    options = {"bits": 12, "photometric": photometric}
    alone = decode(write_dicom(tmp_path / "a", inner, **options))
    limits = {"PixelPaddingValue": pad, "PixelPaddingRangeLimit": pad + 9}
    shown = decode(write_dicom(tmp_path / "b", stored, **options, **limits))
    np.testing.assert_array_equal(shown[2:-2, 3:-3], alone)
    shown[2:-2, 3:-3] = 0
    assert not shown.any()


def test_padding_alone_is_a_dark_image(tmp_path):
    stored = np.full((H, W), 3, np.uint16)
    assert not decode(write_dicom(tmp_path / "a", stored, PixelPaddingValue=3)).any()


def test_a_negative_padding_value_may_be_written_as_unsigned(tmp_path):
    stored = ramp(12, "i2")
    ds = dicom(stored, bits=12, photometric="MONOCHROME1")
    least = int(stored.min())
    ds.add_new("PixelPaddingValue", "US", 2**16 + least)
    shown = decode(save(ds, tmp_path / "a"))
    assert (shown[stored == least] == 0).all()
    assert (shown[(stored > least) & (stored < least + 9)] == 255).all()


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),  # both say the same: it is inverted once
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_polarity(tmp_path, photometric, shape, inverted):
    stored = ramp(8, "u1")
    ds = dicom(stored, photometric=photometric)
    if shape:
        ds.PresentationLUTShape = shape
    shown = decode(save(ds, tmp_path / "a"))
    np.testing.assert_array_equal(shown, 255 - stored if inverted else stored)


@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_bits_beside_those_stored_do_not_count(tmp_path, kind):
    stored, shown = ramp(12, kind), decode(write_dicom(tmp_path / "a", ramp(12, kind), bits=12))
    high = write_dicom(tmp_path / "b", stored << 4 | 9, bits=12, HighBit=15)
    np.testing.assert_array_equal(decode(high), shown)
    unsigned = stored & 0x0FFF  # without the bits of the sign
    np.testing.assert_array_equal(decode(write_dicom(tmp_path / "c", unsigned, bits=12)), shown)
    overlaid = dicom(unsigned | (1 << 13), bits=12)
    overlaid.add_new(0x60020102, "US", 13)
    np.testing.assert_array_equal(decode(save(overlaid, tmp_path / "d")), shown)


def test_windows_that_mean_nothing_leave_the_percentiles(tmp_path):
    stored = ramp(12, "u2")
    expected = decode(write_dicom(tmp_path / "a", stored, bits=12))
    for center, width in ((500, 0), (500, -3), (500, 0.5), ("", 7), (7, "")):
        window = {"WindowCenter": center, "WindowWidth": width}
        shown = decode(write_dicom(tmp_path / "b", stored, bits=12, **window))
        np.testing.assert_array_equal(shown, expected)


def test_a_burned_in_letter_does_not_set_the_scale(tmp_path):
    stored = (ramp(12, "u2") // 8) + 100
    plain = decode(write_dicom(tmp_path / "a", stored, bits=12)).astype(int)
    stored[5, 5:10] = 4095
    marked = decode(write_dicom(tmp_path / "b", stored, bits=12)).astype(int)
    assert (marked[5, 5:10] == 255).all()
    marked[5, 5:10] = plain[5, 5:10]
    np.testing.assert_allclose(marked, plain, atol=3)


def test_luts_as_real_writers_make_them(tmp_path):
    stored = ramp(16, "u2")
    table = np.arange(2**16) // 16
    whole = lut(table, 0, 12)  # 65,536 entries are written as 0
    assert whole.LUTDescriptor[0] == 0
    shown = decode(write_dicom(tmp_path / "a", stored, VOILUTSequence=[whole]))
    np.testing.assert_allclose(shown, stored // 16 * (255 / 4095), atol=0.5 + 1e-9)
    # one entry more than declared: 65,536 does not fit into the descriptor
    longer = lut(table, 0, 12)
    longer.add_new("LUTDescriptor", "US", [2**16 - 1, 0, 12])
    more = decode(write_dicom(tmp_path / "b", stored, VOILUTSequence=[longer]))
    np.testing.assert_array_equal(more, shown)
    small = lut(np.arange(256)[::-1], 0, 8)
    small.add_new("LUTData", "OW", bytes(range(256))[::-1])  # an entry a byte
    inverted = decode(write_dicom(tmp_path / "c", ramp(8, "u1"), VOILUTSequence=[small]))
    np.testing.assert_array_equal(inverted, 255 - ramp(8, "u1"))


@pytest.mark.parametrize("claimed", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("bits", [8, 10, 11, 12, 14, 15, 16])
def test_the_entries_of_a_lut_tell_its_bits_not_the_descriptor(tmp_path, bits, claimed):
    stored = ramp(12, "u2")
    table = np.arange(2**12) * (2**bits - 1) // (2**12 - 1)
    path = write_dicom(tmp_path / "a", stored, bits=12, VOILUTSequence=[lut(table, 0, claimed)])
    expected = table[stored] * (255 / (2**bits - 1))
    np.testing.assert_allclose(decode(path), expected, atol=0.5 + 1e-9)
    modality = write_dicom(
        tmp_path / "b",
        stored,
        bits=12,
        ModalityLUTSequence=[lut(table, 0, claimed)],
        WindowCenter=2 ** (bits - 1),
        WindowWidth=2**bits,
    )
    np.testing.assert_allclose(decode(modality), expected, atol=1)


@pytest.mark.parametrize("written_as", ["US", "SS"])
@pytest.mark.parametrize(
    ("kind", "bits", "first", "intercept"),
    [
        ("i2", 12, -(2**11), 0),  # signed pixels
        ("u2", 12, -1024, -1024),  # unsigned pixels, whose values are signed
        ("u2", 16, 40_000, 0),  # too large for SS
        ("i2", 16, -(2**15), 0),
        ("u2", 12, 0, 0),
    ],
)
def test_the_first_value_of_a_lut_may_be_written_with_the_other_sign(
    tmp_path, written_as, kind, bits, first, intercept
):
    stored = ramp(bits, kind)
    table = np.arange(2**12)
    item = lut(table, 0, 12)
    number = first % 2**16
    if written_as == "SS":
        number -= 2**16 if number >= 2**15 else 0
    item.add_new("LUTDescriptor", written_as, [2**12, number, 12])
    rescale = {"RescaleSlope": 1, "RescaleIntercept": intercept}
    path = write_dicom(tmp_path / "a", stored, bits=bits, VOILUTSequence=[item], **rescale)
    index = np.clip(stored.astype(int) + intercept - first, 0, 2**12 - 1)
    np.testing.assert_allclose(decode(path), index * (255 / 4095), atol=0.5 + 1e-9)


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("claimed", [10, 12, 16])
@pytest.mark.parametrize("length", [2**12 - 1, 2**11, 2**12 + 2, 2**13, 1])
def test_a_lut_of_another_length_than_declared_is_refused(tmp_path, length, claimed, sequence):
    for stored_as in ("OW", "US"):
        item = lut(np.arange(2**12), 0, claimed)
        table = np.arange(length)
        data = table.astype("<u2").tobytes() if stored_as == "OW" else table.tolist()
        item.add_new("LUTData", stored_as, data)
        path = write_dicom(tmp_path / "a", ramp(12, "u2"), bits=12, **{sequence: [item]})
        name = sequence.removesuffix("LUTSequence").replace("Modality", "modality")
        with pytest.raises(UnreadableError, match=f"its {name} LUT has {length} entries; .* 4096"):
            decode(path)


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("descriptor", [None, [2**12, 0], [2**12], [2**12, 0, 12, 1]])
def test_a_lut_without_its_elements_is_refused(tmp_path, descriptor, sequence):
    item = lut(np.arange(2**12), 0, 12)
    if descriptor is None:
        del item.LUTData
    else:
        item.LUTDescriptor = descriptor
    path = write_dicom(tmp_path / "a", ramp(12, "u2"), bits=12, **{sequence: [item]})
    with pytest.raises(UnreadableError, match="LUT has no data, or no descriptor of three numbers"):
        decode(path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2048,0", 2048),
        ("2048,5", 2048.5),
        (" 1,5e3 ", 1500),
        ("-40,25", -40.25),
        (r"9,5\7,5", 9.5),
    ],
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_comma_is_the_decimal_mark_of_some_writers(tmp_path, written, meant, syntax):
    def shown(text):
        """A film with this text as the value of each element, in place of a mark."""
        mark = "7" * 10
        elements = dict.fromkeys(["WindowCenter", "RescaleIntercept"], mark)
        window = {"WindowWidth": mark, "RescaleSlope": "1"}
        path = write_dicom(
            tmp_path / "a", ramp(12, "u2"), bits=12, syntax=syntax, **elements, **window
        )
        width = text.replace("-", " ").strip().ljust(10)  # a width is positive
        whole = path.read_bytes()
        for value in (text.ljust(10), width, text.ljust(10)):
            whole = whole.replace(mark.encode(), value.encode(), 1)
        path.write_bytes(whole)
        return decode(path)

    np.testing.assert_array_equal(shown(written), shown(str(meant)))


@pytest.mark.parametrize("written", ["twelve", "1,024.5", "1,2,3", "0x12", "2048 HU"])
@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("WindowCenter", "Window Center"),
        ("WindowWidth", "Window Width"),
        ("RescaleSlope", "Rescale Slope"),
        ("RescaleIntercept", "Rescale Intercept"),
    ],
)
def test_a_window_that_is_no_number_is_refused(tmp_path, keyword, name, written):
    elements = {"WindowCenter": "1", "WindowWidth": "9", "RescaleSlope": "1"}
    elements |= {"RescaleIntercept": "0", keyword: "7777777777"}
    path = write_dicom(tmp_path / "a", ramp(12, "u2"), bits=12, **elements)
    path.write_bytes(path.read_bytes().replace(b"7777777777", written.ljust(10).encode()))
    with pytest.raises(UnreadableError, match=f"^its {name} is not a number$"):
        decode(path)


@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_values_at_the_low_end_of_a_word_whose_high_bit_says_otherwise(tmp_path, kind):
    """Bits Stored of 12 and a High Bit of 15, but no value needs more than the lowest 12 bits."""
    stored, window = ramp(12, kind), {"WindowCenter": 900, "WindowWidth": 1500}
    plain = decode(write_dicom(tmp_path / "a", stored, bits=12, **window))
    low = write_dicom(tmp_path / "b", stored, bits=12, HighBit=15, **window)
    np.testing.assert_array_equal(decode(low), plain)
    without_sign = write_dicom(tmp_path / "c", stored & 0x0FFF, bits=12, HighBit=15, **window)
    np.testing.assert_array_equal(decode(without_sign), plain)
    high = write_dicom(tmp_path / "d", stored << 4, bits=12, HighBit=15, **window)
    np.testing.assert_array_equal(decode(high), plain)


def test_a_dark_film_at_the_high_end_of_a_word_stays_dark(tmp_path):
    """No bit below those stored is set: the High Bit is right."""
    stored, window = ramp(12, "u2") // 16, {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = decode(write_dicom(tmp_path / "a", stored, bits=12, **window))
    high = write_dicom(tmp_path / "b", stored << 4, bits=12, HighBit=15, **window)
    np.testing.assert_array_equal(decode(high), plain)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_compressed_colour_image_needs_no_planar_configuration(tmp_path, syntax):
    rgb = np.stack([ramp(8, "u1"), ramp(8, "u1")[::-1], ramp(8, "u1")[:, ::-1]], axis=-1)
    ds = dicom(rgb, photometric="RGB", syntax=syntax)
    shown = decode(save(ds, tmp_path / "a"))
    np.testing.assert_allclose(shown, bt601(rgb), atol=1)
    del ds.PlanarConfiguration
    np.testing.assert_array_equal(decode(save(ds, tmp_path / "b")), shown)


def test_files_without_a_preamble_are_read(tmp_path):
    stored = ramp(12, "u2")
    shown = decode(write_dicom(tmp_path / "a", stored, bits=12))
    for name, implicit, little in (("b", True, True), ("c", False, True), ("d", False, False)):
        syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds = dicom(stored, bits=12, syntax=syntax)
        buffer = io.BytesIO()
        ds.preamble = None
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        order = {"implicit_vr": implicit, "little_endian": little}
        pydicom.dcmwrite(buffer, ds, force_encoding=True, **order)
        (tmp_path / name).write_bytes(buffer.getvalue())
        np.testing.assert_array_equal(decode(tmp_path / name), shown)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        (JPEG2000Lossless, r"JPEG 2000 .* install 'pylibjpeg\[openjpeg,rle\]'"),
        (JPEGLSLossless, "JPEG-LS .* install 'imagecodecs'"),
        (JPEGBaseline8Bit, "JPEG Baseline .* install 'pillow'"),
    ],
)
def test_a_missing_codec_is_named(tmp_path, monkeypatch, syntax, reason):
    path = write_dicom(tmp_path / "a", ramp(8, "u1"), syntax=syntax)
    monkeypatch.setattr(get_decoder(syntax), "_available", {"another": None})
    with pytest.raises(UnreadableError, match=reason):
        decode(path)


@pytest.mark.parametrize("syntax", [RLELossless, *STREAMS], ids=str)
def test_the_pixels_do_not_depend_on_what_else_is_installed(tmp_path, monkeypatch, syntax):
    path = write_dicom(tmp_path / "a", ramp(8, "u1"), syntax=syntax)
    shown, decoder = decode(path), get_decoder(syntax)
    others = dict.fromkeys(["gdcm", "pyjpegls", "pylibjpeg", "pillow", "pydicom"])
    named = module.PLUGINS.get(syntax, "pylibjpeg")
    monkeypatch.setattr(decoder, "_available", others | {named: decoder._available[named]})
    np.testing.assert_array_equal(decode(path), shown)


COMPRESSED = [
    *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless),
    *(JPEG2000Lossless, HTJ2KLossless, RLELossless),
]


@pytest.mark.parametrize(
    ("syntax", "filler"),
    # RLE has no end marker, and FF FF are valid pixels of it.
    [
        (s, f)
        for s in COMPRESSED
        for f in (None, b"\0", b"\xff")
        if (s, f) != (RLELossless, b"\xff")
    ],
)
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_a_compressed_image_that_is_cut_off_is_refused(tmp_path, syntax, filler, keep):
    """Its decoder may return gray for what is missing, also if the rest was filled up."""
    ds = dicom(ramp(8, "u1", rows=2 * H), syntax=syntax)
    whole = get_frame(ds.PixelData, 0, number_of_frames=1)
    cut = whole[: int(keep * len(whole))]
    ds.PixelData = encapsulate([cut.ljust(len(whole), filler) if filler else cut])
    with pytest.raises(UnreadableError, match=r"truncated|damaged"):
        decode(save(ds, tmp_path / "a"))


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_a_compressed_image_may_be_padded(tmp_path, syntax):
    ds = dicom(ramp(8, "u1"), syntax=syntax)
    shown = decode(save(ds, tmp_path / "a"))
    whole = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([whole + bytes(3000)])
    np.testing.assert_array_equal(decode(save(ds, tmp_path / "b")), shown)


def test_a_jpeg_that_lost_pixels_is_refused_although_it_ends_correctly(tmp_path):
    ds = dicom(ramp(8, "u1"), syntax=JPEGBaseline8Bit)
    whole = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([whole[: len(whole) // 2] + b"\xff\xd9"])
    with pytest.raises(UnreadableError, match=r"its decoder says: .*premature end"):
        decode(save(ds, tmp_path / "a"))


OTHER_WRITERS = [
    *("MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"),
    *("JPEG2000.dcm", "US1_J2KI.dcm", "US1_J2KR.dcm", "MR2_J2KI.dcm", "693_J2KR.dcm"),
    *("JPEG-LL.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_small_odd_jpeg.dcm"),
    *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_rle_16bit.dcm"),
]


@pytest.mark.parametrize("name", OTHER_WRITERS)
def test_whole_streams_of_other_writers_are_read(name):
    assert decode(film(name)).std() > 0
