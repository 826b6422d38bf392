import io

import cv2
import numpy as np
import pytest
from PIL import Image

from fluoroscope.data.images import fit_square, read_image
from fluoroscope.errors import InputError

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


def test_padding_behind_the_end_is_no_truncation(tmp_path, gray):
    for kind in ("PNG", "JPEG"):
        (tmp_path / "a").write_bytes(encode(gray, kind) + b"\0" * 64)
        assert read_image(tmp_path / "a").shape == (H, W)


def test_unreadable_files_are_refused(tmp_path, gray):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image" * 50)
    damaged = bytearray(encode(gray, "PNG"))
    damaged[60] ^= 255
    (tmp_path / "damaged.png").write_bytes(damaged)
    expected = {
        "missing.png": "no such file or directory",
        "empty.png": "the file is empty",
        "text.png": "no image of a known kind",
        "damaged.png": "it is damaged",
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
