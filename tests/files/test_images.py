import contextlib
import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from fluoroscope.errors import InputError
from fluoroscope.files.images import decode_film, fit_square, read_image

H, W = 37, 53


@pytest.fixture
def gray():
    """A bright disc on a slope: no two rows or columns alike. [37, 53]"""
    y, x = np.mgrid[:H, :W]
    return (2 * y + x + 100 * ((y - 12) ** 2 + (x - 30) ** 2 < 60)).astype(np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def encode(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg"])
def test_eight_bit_gray_is_what_pillow_reads(tmp_path, gray, suffix):
    path = save(tmp_path / f"a.{suffix}", gray)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    expected = np.asarray(Image.open(path))
    # two JPEG decoders may round differently
    np.testing.assert_allclose(pixels.astype(int), expected, atol=1 if suffix == "jpg" else 0)


def test_colour_becomes_luma_and_alpha_is_dropped(tmp_path, gray):
    colour = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1)
    luma = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    np.testing.assert_allclose(read_image(save(tmp_path / "rgb.png", colour)), luma, atol=1)
    alpha = np.dstack([colour, gray.T.reshape(H, W)])
    np.testing.assert_allclose(read_image(save(tmp_path / "rgba.png", alpha)), luma, atol=1)
    grays = Image.fromarray(np.dstack([gray] * 3))
    np.testing.assert_array_equal(read_image(save(tmp_path / "g.png", np.asarray(grays))), gray)
    grays.convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), gray)


def test_palette_and_one_bit_files(tmp_path, gray):
    image = Image.fromarray(gray)
    image.convert("P").save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), gray)
    black_white = image.point(lambda value: 255 * (value > 90)).convert("1")
    black_white.save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png"), 255 * (gray > 90))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, depth, colour_type, *extra):
    """A PNG by hand, for the kinds that Pillow does not write: a row of bytes a row of pixels."""
    head = struct.pack(">IIBBBBB", W, H, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits(tmp_path, gray, depth):
    values = gray >> (8 - depth)
    bits = np.unpackbits(values[..., None], axis=-1)[..., -depth:].reshape(H, -1)
    packed = np.packbits(bits, axis=1)
    (tmp_path / "a").write_bytes(png(packed, depth, 0))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), values * (255 // (2**depth - 1)))
    palette = np.arange(2**depth) * 5 + 3
    colours = chunk(b"PLTE", np.repeat(palette, 3).astype(np.uint8).tobytes())
    for extra in ([colours], [colours, chunk(b"tRNS", b"\0\x80")]):
        (tmp_path / "a").write_bytes(png(packed, depth, 3, *extra))
        np.testing.assert_array_equal(read_image(tmp_path / "a"), palette[values])


def test_alpha_of_sixteen_bit_png_is_dropped(tmp_path, gray):
    deep = gray.astype(np.uint16) * 16 + 5  # twelve bits
    alpha = np.random.default_rng(0).integers(0, 2**16, (H, W), dtype=np.uint16)
    expected = (deep - float(deep.min())) / np.ptp(deep) * 255
    for colour_type, channels in ((4, [deep, alpha]), (6, [deep, deep, deep, alpha])):
        rows = np.stack(channels, axis=-1).astype(">u2").reshape(H, -1)
        (tmp_path / "a").write_bytes(png([row.tobytes() for row in rows], 16, colour_type))
        np.testing.assert_allclose(read_image(tmp_path / "a"), expected, atol=0.51)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_whose_zero_is_white_is_inverted(tmp_path, gray, kind, big, order):
    pixels = gray.astype(kind)
    options = {"bigtiff": big, "byteorder": order}
    tifffile.imwrite(tmp_path / "w", pixels, photometric="miniswhite", **options)
    tifffile.imwrite(tmp_path / "b", pixels, photometric="minisblack", **options)
    black = read_image(tmp_path / "b")
    np.testing.assert_array_equal(read_image(tmp_path / "w"), 255 - black)
    scale = (gray - float(gray.min())) / np.ptp(gray) * 255
    np.testing.assert_allclose(black, gray if kind == "u1" else scale, atol=0.51)


def test_tiff_with_a_preview_or_with_colour(tmp_path, gray):
    with tifffile.TiffWriter(tmp_path / "a") as tiff:
        tiff.write(gray, photometric="minisblack")
        tiff.write(gray[::4, ::4], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a"), gray)
    colour = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1)
    luma = colour @ [0.299, 0.587, 0.114]
    tifffile.imwrite(tmp_path / "b", colour, photometric="rgb")
    np.testing.assert_allclose(read_image(tmp_path / "b"), luma, atol=1)
    planes = np.moveaxis(colour, -1, 0)
    tifffile.imwrite(tmp_path / "d", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_allclose(read_image(tmp_path / "d"), luma, atol=1)
    clear = np.dstack([colour, gray])
    tifffile.imwrite(tmp_path / "c", clear, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(InputError, match="transparent in places"):
        read_image(tmp_path / "c")


def test_jpeg_gives_its_own_luma(tmp_path, gray):
    colour = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1)
    path = save(tmp_path / "a.jpg", colour, quality=95)
    draft = Image.open(path)
    draft.draft("L", draft.size)  # the Y of its YCbCr
    np.testing.assert_allclose(read_image(path).astype(int), np.asarray(draft), atol=1)


KINDS = [
    *(("PNG", "L"), ("PNG", "RGB"), ("PNG", "I;16"), ("JPEG", "L"), ("JPEG", "RGB")),
    *(("TIFF", "L"), ("TIFF", "RGB"), ("TIFF", "I;16"), ("TIFF", "F")),
]


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_orientation_tags_are_obeyed_as_pillow_does(tmp_path, gray, kind, mode, tag):
    deep = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = tag
    image = Image.fromarray(gray.astype(deep))
    image = image.convert("RGB") if mode == "RGB" else image
    image.save(tmp_path / "tagged", kind, exif=exif)
    image.save(tmp_path / "plain", kind)
    plain = Image.fromarray(read_image(tmp_path / "plain"))
    plain.getexif()[0x0112] = tag
    film = decode_film(tmp_path / "tagged")
    np.testing.assert_array_equal(film.pixels, ImageOps.exif_transpose(plain))
    assert film.orientation == tag
    assert film.pixels.flags.c_contiguous


@pytest.mark.parametrize("tag", [0, 9, 255])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_an_orientation_that_does_not_exist_means_nothing(tmp_path, gray, kind, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(gray).save(tmp_path / "a", kind, exif=exif)
    Image.fromarray(gray).save(tmp_path / "b", kind)
    film = decode_film(tmp_path / "a")
    np.testing.assert_array_equal(film.pixels, read_image(tmp_path / "b"))
    assert film.orientation == 1


def test_a_damaged_exif_block_means_nothing(tmp_path, gray):
    for block in (b"", b"nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09"):
        (tmp_path / "a").write_bytes(png(gray, 8, 0, chunk(b"eXIf", block)))
        np.testing.assert_array_equal(read_image(tmp_path / "a"), gray)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "bool", ">u2"])
@pytest.mark.parametrize("form", ["C", "F", "first", "last"])
def test_numpy_files(tmp_path, gray, kind, form):
    array = (gray // 2).astype(kind) if kind != "bool" else gray > 90
    expected = 255 * (array.astype(float) - array.min()) / np.ptp(array.astype(float))
    if kind == "u1":
        expected = array
    shape = {"first": (1, H, W), "last": (H, W, 1)}.get(form, (H, W))
    np.save(
        tmp_path / "a.npy",
        np.asarray(array, order=form[:1] if form in "CF" else "C").reshape(shape),
    )
    pixels = read_image(tmp_path / "a.npy")
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_allclose(pixels, expected, atol=0.51)


def test_numpy_colour_is_rgb(tmp_path, gray):
    colour = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1)
    luma = colour @ [0.299, 0.587, 0.114]
    for channels in (colour, np.dstack([colour, gray])):
        np.save(tmp_path / "a.npy", channels)
        np.testing.assert_allclose(read_image(tmp_path / "a.npy"), luma, atol=1)
    np.save(tmp_path / "b.npy", colour / 255)
    scaled = (luma - luma.min()) / np.ptp(luma) * 255
    np.testing.assert_allclose(read_image(tmp_path / "b.npy"), scaled, atol=0.51)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_is_scaled_by_its_range(tmp_path, bits, suffix):
    deep = np.linspace(40, 2**bits - 1, H * W).astype(np.uint16).reshape(H, W)
    pixels = read_image(save(tmp_path / f"a.{suffix}", deep))
    expected = (deep - 40.0) / (2**bits - 41) * 255
    np.testing.assert_allclose(pixels, expected, atol=0.5)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_sixteen_bit_colour_and_float_files(tmp_path):
    deep = np.linspace(0, 40_000, H * W).astype(np.uint16).reshape(H, W)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([deep] * 3))
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), deep / 40_000 * 255, atol=0.51)
    pixels = read_image(save(tmp_path / "f.tif", deep.astype(np.float32) / 7))
    np.testing.assert_allclose(pixels, deep / 40_000 * 255, atol=0.51)
    with pytest.raises(InputError, match="not finite"):
        read_image(save(tmp_path / "n.tif", np.full((H, W), np.nan, np.float32)))


def test_one_pixel_and_constant_images_are_read(tmp_path):
    assert read_image(save(tmp_path / "a.png", np.full((1, 1), 7, np.uint8))).tolist() == [[7]]
    deep = np.full((2, 3), 3000, np.uint16)
    assert read_image(save(tmp_path / "b.png", deep)).tolist() == [[0] * 3] * 2


def test_path_may_hold_any_letter(tmp_path, gray):
    path = save(tmp_path / "Röntgen 胸部.png", gray)
    np.testing.assert_array_equal(read_image(str(path)), gray)


@pytest.mark.parametrize("keep", [0.3, 0.9, -2])
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})]
)
def test_truncated_files_are_refused(tmp_path, gray, kind, options, keep):
    data = encode(gray, kind, **options)
    end = keep if keep < 0 else int(keep * len(data))
    (tmp_path / "a").write_bytes(data[: end - 8 if kind == "PNG" else end])
    with pytest.raises(InputError, match=r"cannot read image .*/a: the file is truncated"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize("size", [1, 64, 1023, 1025, 5000, 300_000])
@pytest.mark.parametrize("byte", [b"\0", b"\xff", b" ", b"\n", b"\xaa"])
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})]
)
def test_padding_behind_the_end_is_no_truncation(tmp_path, gray, kind, options, byte, size):
    whole = encode(gray, kind, **options)
    (tmp_path / "a").write_bytes(whole)
    (tmp_path / "b").write_bytes(whole + byte * size)
    np.testing.assert_array_equal(read_image(tmp_path / "b"), read_image(tmp_path / "a"))


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\xaa"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_padding_does_not_hide_a_truncation(tmp_path, gray, options, byte):
    whole = encode(gray, "JPEG", **options)
    for keep in (0.4, 0.7, 0.95):
        (tmp_path / "a").write_bytes(whole[: int(keep * len(whole))] + byte * 5000)
        with pytest.raises(InputError, match=r"truncated|damaged"):
            read_image(tmp_path / "a")


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        *(("L", {"quality": 60}), ("RGB", {"quality": 90}), ("RGB", {"subsampling": 0})),
        *(("RGB", {"progressive": True}), ("L", {"restart_marker_blocks": 3}), ("CMYK", {})),
    ],
)
def test_jpegs_decode_as_opencv_does(tmp_path, gray, mode, options):
    Image.fromarray(gray).convert(mode).save(tmp_path / "a.jpg", **options)
    expected = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


def test_no_decoder_writes_to_the_terminal(tmp_path, gray, capfd):
    """OpenCV and torchvision would print a warning that does not name the file."""
    whole = encode(gray, "JPEG")
    for at in range(len(whole) // 2, len(whole) - 2, 7):
        (tmp_path / "a").write_bytes(whole[:at] + b"\x55" + whole[at + 1 :])
        with contextlib.suppress(InputError):
            read_image(tmp_path / "a")
    assert capfd.readouterr() == ("", "")


def test_unreadable_files_are_refused(tmp_path, gray):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image" * 50)
    damaged = bytearray(encode(gray, "PNG"))
    damaged[60] ^= 255
    (tmp_path / "damaged.png").write_bytes(damaged)
    expected = {
        "missing.png": "no such file or directory",
        "empty.png": "the file is empty",
        "text.png": "not an image in a supported format",
        "damaged.png": "the file is damaged",
    }
    for name, reason in expected.items():
        with pytest.raises(InputError, match=rf"^cannot read image .*/{name}: .*{reason}"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("shape", [(64, 40), (40, 64), (20, 16), (48, 48), (1, 300)])
def test_fit_square_keeps_the_aspect_and_centres(shape):
    size = 48
    square = fit_square(np.full(shape, 200, np.uint8), size)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8
    rows, columns = np.nonzero(square)
    inner = square[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (inner == 200).all()
    expected = [max(1, round(side * size / max(shape))) for side in shape]
    assert list(inner.shape) == expected
    assert abs(rows.min() - (size - 1 - rows.max())) <= 1
    assert abs(columns.min() - (size - 1 - columns.max())) <= 1


def test_fit_square_averages_areas_and_leaves_fitting_images_alone():
    big = np.random.default_rng(0).integers(0, 256, (4 * W, 4 * W), dtype=np.uint8)
    means = big.reshape(W, 4, W, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(fit_square(big, W), means, atol=0.51)
    fitting = big[:W, :W]
    np.testing.assert_array_equal(fit_square(fitting, W), fitting)


def test_reading_png_needs_no_dicom_library(tmp_path, gray):
    path = save(tmp_path / "a.png", gray)
    code = (
        "import sys; from fluoroscope.files.images import decode; decode(sys.argv[1]); "
        "sys.exit('pydicom' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
