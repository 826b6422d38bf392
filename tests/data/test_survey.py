import json

import numpy as np
import pytest
from PIL import Image

from fluoroscope.data import survey
from fluoroscope.data.survey import check_images
from fluoroscope.errors import InputError

H, W = 37, 53


@pytest.fixture
def gray():
    """A bright disc on a slope: no two rows or columns alike. [37, 53]"""
    y, x = np.mgrid[:H, :W]
    return (2 * y + x + 100 * ((y - 12) ** 2 + (x - 30) ** 2 < 60)).astype(np.uint8)


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def collection(tmp_path, gray):
    """Five files: 1 is constant, 3 is empty and 4 is missing."""
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    save(paths[0], gray)
    save(paths[1], np.full((H, W), 9, np.uint8))
    save(paths[2], gray.T)
    paths[3].touch()
    return paths


def test_check_images_returns_the_unusable(collection):
    assert check_images(collection, "skip") == [1, 3, 4]
    assert check_images(collection, "skip", workers=1) == [1, 3, 4]
    assert check_images(collection[:1], "stop") == []


def test_check_images_stops(collection):
    message = r"3 of 5 images .*1.png \(every pixel is 9\); .*3.png \(the file is empty\); .*4.png"
    with pytest.raises(InputError, match=message + r".*data.on_unreadable=skip"):
        check_images(collection)
    with pytest.raises(InputError, match=r"data.on_unreadable must be one of skip, stop"):
        check_images(collection, "ignore")


def test_check_images_remembers(collection, tmp_path, monkeypatch, gray):
    cache = tmp_path / "cache"
    assert check_images(collection, "skip", cache_dir=cache) == [1, 3, 4]
    (remembered,) = cache.iterdir()
    assert json.loads(remembered.read_text()).keys() == {"1", "3", "4"}
    assert str(tmp_path) not in remembered.read_text()

    decoded = []
    reason = survey._reason_unusable
    monkeypatch.setattr(survey, "_reason_unusable", lambda p: decoded.append(p) or reason(p))
    assert check_images(collection, "skip", cache_dir=cache) == [1, 3, 4]
    with pytest.raises(InputError, match="3 of 5 images"):
        check_images(collection, "stop", cache_dir=cache)
    assert decoded == []
    save(collection[3], gray)
    assert check_images(collection, "skip", cache_dir=cache) == [1, 4]
    assert len(decoded) == 5


def test_check_images_does_without_a_cache_that_cannot_be_written(collection, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below", "/proc/none/cache"):
        assert check_images(collection, "skip", cache_dir=folder) == [1, 3, 4]


def test_check_images_survives_a_full_disk(collection, tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(survey.Path, "write_text", no_space)
    assert check_images(collection, "skip", cache_dir=tmp_path / "cache") == [1, 3, 4]


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"1": "every', b"\xff\xfe{", b"[1, 3]", b"null", b'{"a": "b"}', b'{"5": "b"}'],
)
def test_check_images_decodes_again_and_repairs_a_damaged_cache(collection, tmp_path, damage):
    cache = tmp_path / "cache"
    check_images(collection, "skip", cache_dir=cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert check_images(collection, "skip", cache_dir=cache) == [1, 3, 4]
    assert file.read_bytes() == whole


@pytest.mark.parametrize("on_unreadable", ["skip", "stop"])
def test_check_images_stops_where_none_can_be_used(collection, on_unreadable):
    message = r"^2 of 2 images cannot be used: .*3.png .*4.png .*; no usable images are left; check"
    with pytest.raises(InputError, match=message):
        check_images(collection[3:], on_unreadable)
    assert check_images([], on_unreadable) == []
