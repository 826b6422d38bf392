import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from fluoroscope.data import image_stats, survey
from fluoroscope.data.image_stats import exact_hash, hash_signs, mirrored, perceptual_hash
from fluoroscope.data.survey import find_unusable, survey_images, turned_images
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


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded from here on."""
    names = []
    decode = survey.decode_film
    monkeypatch.setattr(
        survey, "decode_film", lambda p: names.append(os.path.basename(p)) or decode(p)
    )
    return names


def check_images(paths, on_unreadable="stop", **options):
    return find_unusable(paths, survey_images(paths, **options), on_unreadable)


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


@pytest.mark.parametrize("on_unreadable", ["skip", "stop"])
def test_check_images_stops_where_none_can_be_used(collection, on_unreadable):
    message = r"^2 of 2 images cannot be used: .*3.png .*4.png .*; no usable images are left; check"
    with pytest.raises(InputError, match=message):
        check_images(collection[3:], on_unreadable)
    assert check_images([], on_unreadable) == []


def test_a_survey_measures_what_numpy_does(collection, gray):
    found = survey_images(collection)
    assert list(found["reason"].astype(bool)) == [False, True, False, True, True]
    for row, pixels in ((0, gray), (2, gray.T), (1, np.full((H, W), 9))):
        numbers = found.loc[row, ["height", "width", "low", "high", "mean", "std"]]
        truth = [*pixels.shape, pixels.min(), pixels.max(), pixels.mean(), pixels.std()]
        assert numbers.tolist() == pytest.approx(truth, rel=1e-5)
    assert found.loc[3, "height":].tolist() == [0] * 15


def test_dark_and_bright_shares(tmp_path):
    pixels = np.full((256, 256), 100, np.uint8)
    pixels[:64], pixels[-32:] = 16, 239
    found = survey_images([save(tmp_path / "a.png", pixels)]).iloc[0]
    assert (found["dark_frac"], found["bright_frac"]) == (0.25, 0.125)


def test_exact_hash_is_of_pixels_and_shape(gray):
    assert exact_hash(gray) == exact_hash(gray.copy(order="F"))
    changed = gray.copy()
    changed[-1, -1] += 1
    others = [changed, gray.T, gray.reshape(W, H), gray[:, :-1]]
    assert len({exact_hash(other) for other in [gray, *others]}) == 5


def test_perceptual_hash_is_the_signs_of_slow_cosines():
    small = np.random.default_rng(3).integers(0, 256, (64, 64), np.uint8)
    truth = np.sign(dctn(small.astype(float))[1:17, 1:17]).ravel()

    def signs(pixels):
        return hash_signs(perceptual_hash(np.ascontiguousarray(pixels))[None])[0]

    assert (signs(small) == truth).all()
    assert (signs(~small) == -truth).all()
    assert (signs(small[:, ::-1]) == mirrored(truth[None])[0]).all()
    assert (signs(small // 2 + 40) != truth).mean() < 0.05


def test_trim_cuts_the_black_border_of_a_film_and_the_white_one_of_its_negative(gray):
    square = image_stats.thumbnail(gray)
    framed = np.pad(square[30:-30, 20:-20], ((30, 30), (20, 20)))
    assert image_stats.trim(framed).shape == (196, 216)
    assert (image_stats.trim(~framed, negative=True) == ~image_stats.trim(framed)).all()
    mostly_black = np.pad(square[:50, :50], ((0, 206), (0, 206)))
    assert image_stats.trim(mostly_black).shape == (256, 256)


def test_a_survey_decodes_only_what_changed(collection, tmp_path, decoded, gray):
    cache = tmp_path / "cache"
    first = survey_images(collection, cache_dir=cache)
    assert len(decoded) == 5
    (remembered,) = cache.glob("*.npz")
    assert str(tmp_path).encode() not in remembered.read_bytes()
    decoded.clear()

    assert survey_images(collection, cache_dir=cache).equals(first)
    assert decoded == ["1.png", "3.png", "4.png"]  # they may have been repaired unseen
    decoded.clear()

    extra = save(tmp_path / "5.png", gray[::-1])
    save(collection[2], gray)
    more = survey_images([extra, *collection[:3]], cache_dir=cache)
    assert decoded == ["5.png", "1.png", "2.png"]
    assert more["exact"].tolist()[1] == more["exact"].tolist()[3] == first["exact"][0]
    decoded.clear()

    survey_images([save(tmp_path / "6.png", gray)], cache_dir=cache)
    survey_images([extra, collection[2], collection[0]], cache_dir=cache)
    assert decoded == ["6.png"]  # what was left out meanwhile stays remembered


def test_an_interrupted_survey_keeps_what_it_measured(collection, tmp_path, monkeypatch, decoded):
    class Stopped(BaseException):
        pass

    def stop(pixels):
        if len(decoded) > 2:
            raise Stopped
        return image_stats.measure(pixels)

    monkeypatch.setattr(survey, "measure", stop)
    with pytest.raises(Stopped):
        survey_images(collection[:3], workers=1, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(survey, "measure", image_stats.measure)
    decoded.clear()
    survey_images(collection[:3], cache_dir=tmp_path / "cache")
    assert decoded == ["1.png", "2.png"]


def test_a_survey_saves_on_its_way(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "SAVE_EVERY_S", -1)
    kept = []
    monkeypatch.setattr(
        survey.Remembered, "keep", lambda self, rows, known: kept.append(known.sum())
    )
    survey_images(collection, cache_dir=tmp_path)
    assert kept == [1, 1, 2, 2, 2, 2]


INTERRUPTED = """
import signal
import time
from fluoroscope.data import survey

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores

def slow(path):
    print("decoding", flush=True)
    time.sleep(0.2)
    raise survey.UnreadableError("slow")

survey.decode_film = slow
survey.survey_images(["a"] * 3000, workers=2)
"""


def test_an_interrupt_ends_a_survey_at_once():
    # A survey that went on would take five minutes.
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline().startswith(b"decoding")  # two threads may share a line
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.stdout.close()


def test_check_images_does_without_a_cache_that_cannot_be_written(collection, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below", "/proc/none/cache"):
        assert check_images(collection, "skip", cache_dir=folder) == [1, 3, 4]


def test_check_images_survives_a_full_disk(collection, tmp_path, monkeypatch):
    def no_space(stream, **_):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", no_space)
    assert check_images(collection, "skip", cache_dir=tmp_path / "cache") == [1, 3, 4]
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} <= {".lock"}


def _another_kind(file):
    np.savez_compressed(file, names=np.arange(5), stamps=np.arange(5), measures=np.arange(5))


def _too_short(file):
    with np.load(file) as stored:
        arrays = dict(stored)
    np.savez_compressed(file, **arrays | {"stamps": arrays["stamps"][:1]})


def _cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def _flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b'{"1": "every'),
        lambda file: np.save(file.open("wb"), np.arange(3)),
        lambda file: np.save(file.open("wb"), np.array([{}]), allow_pickle=True),
        _another_kind,
        _too_short,
        _cut,
        _flipped,
    ],
)
def test_a_survey_decodes_again_and_repairs_a_damaged_cache(collection, tmp_path, damage, decoded):
    cache = tmp_path / "cache"
    first = survey_images(collection, cache_dir=cache)
    (file,) = cache.glob("*.npz")
    damage(file)
    decoded.clear()
    assert survey_images(collection, cache_dir=cache).equals(first)
    assert len(decoded) == 5
    decoded.clear()
    assert survey_images(collection, cache_dir=cache).equals(first)
    assert len(decoded) == 3


def test_files_with_the_same_time_and_size_but_another_reader_are_measured_anew(
    collection, tmp_path, monkeypatch, decoded
):
    survey_images(collection[:1], cache_dir=tmp_path)
    monkeypatch.setattr("fluoroscope.data.survey_cache.VERSION", 999)
    survey_images(collection[:1], cache_dir=tmp_path)
    assert decoded == ["0.png", "0.png"]


def test_time_alone_tells_a_changed_file(collection, tmp_path, decoded, gray):
    survey_images(collection[:1], cache_dir=tmp_path)
    os.utime(collection[0], (time.time(), 12345))
    survey_images(collection[:1], cache_dir=tmp_path)
    assert decoded == ["0.png", "0.png"]


def test_processes_that_start_together_decode_once(tmp_path, gray):
    """The second waits for the first and finds what it kept."""
    for number in range(40):
        save(tmp_path / f"{number}.png", np.roll(gray, number))
    decode = (
        "import sys; from pathlib import Path; from fluoroscope.data import survey\n"
        "read, reads = survey.decode_film, []\n"
        "survey.decode_film = lambda path: reads.append(path) or read(path)\n"
        "survey.survey_images(sorted(Path(sys.argv[1]).glob('*.png')), 1, sys.argv[1] + '/cache')\n"
        "print(len(reads))"
    )
    command = [sys.executable, "-c", decode, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sum(int(process.communicate(timeout=60)[0]) for process in both) == 40


def test_a_survey_counts_the_images_that_it_turned(tmp_path, gray):
    """Measures are those of the turned image, also from the cache."""
    paths = [save(tmp_path / "a.png", gray)]
    for tag, suffix in ((6, "png"), (2, "jpg"), (1, "tif"), (8, "tif")):
        exif = Image.Exif()
        exif[0x0112] = tag
        paths.append(tmp_path / f"{tag}.{suffix}")
        Image.fromarray(gray).save(paths[-1], exif=exif)
    for _ in range(2):
        found = survey_images(paths, cache_dir=tmp_path / "cache")
        assert found["orientation"].tolist() == [1, 6, 2, 1, 8]
        assert found["height"].tolist() == [H, W, H, H, W]
        assert found["exact"][1] == exact_hash(np.rot90(gray, -1))
        (turned,) = turned_images(found)
        assert turned.describe() == (
            "images turned or mirrored, as their orientation tag says (images 3)"
        )
    assert turned_images(found.iloc[[0, 3]]) == ()
