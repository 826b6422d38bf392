"""How and where films are stored, if it goes with a label."""

import cv2
import numpy as np
import pandas as pd
import pytest

from fluoroscope.audit.findings import Subject
from fluoroscope.audit.origin_checks import LEARNT, check_origin
from fluoroscope.data.study_table import study_table
from fluoroscope.data.survey import survey_images
from tests.audit.collection import chest

COUNT = 40


def write(root, place, sick):
    """40 films, of which `sick` have the label; `place` gives file, bit depth and size of each."""
    paths = []
    for n, is_sick in enumerate(sick):
        name, bits, size_px = place(n, is_sick)
        film = cv2.resize(chest(n), (size_px, 64), interpolation=cv2.INTER_AREA)
        paths.append(root / name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(paths[-1]), film.astype(np.uint16) * 257 if bits == 16 else film)
    return paths


def found(root, place, sick=None, named=False, patients=None, label="Edema"):
    sick = np.arange(COUNT) % 2 == 1 if sick is None else sick
    paths = write(root, place, sick)
    table = study_table(paths, pd.DataFrame({label: np.asarray(sick, float)}), patients)
    survey = survey_images(table["path"].tolist())
    return list(check_origin(Subject(table, [label], survey, named=named)))


def alike(n, is_sick):
    return f"{n}.png", 8, 80


PLACES = {
    "bits-go-with-label": (
        lambda n, sick: (f"{n}.png", 16 if sick else 8, 80),
        "'Edema' is present on 0.0% of the 8-bit images, 100.0% of the 16-bit images",
        "bit depth",
    ),
    "format-goes-with-label": (
        lambda n, sick: (f"{n}.{'jpg' if sick else 'png'}", 8, 80),
        "'Edema' is present on 0.0% of the PNG files, 100.0% of the JPEG files",
        "file format",
    ),
    "size-goes-with-label": (
        lambda n, sick: (f"{n}.png", 8, 90 if sick else 80),
        "'Edema' is present on 0.0% of the images of 80 x 64 px, 100.0% of the images of 90 x 64",
        "size of the images",
    ),
    "folder-goes-with-label": (
        lambda n, sick: (f"{'Hue' if sick else 'Hanoi'}/{n}.png", 8, 80),
        "'Edema' is present on 0.0% of folder 1, 100.0% of folder 2",
        "origin of the images",
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_each_property_that_goes_with_a_label(tmp_path, name):
    place, sentence, learnt = PLACES[name]
    (finding,) = found(tmp_path, place)
    assert (finding.name, finding.hard) == (name, False)
    assert finding.sentence.startswith(sentence)
    assert finding.sentence.endswith(f"a network may learn the {learnt} instead")
    assert set(PLACES) == set(LEARNT)


def test_nothing_is_told_of_what_goes_with_no_label(tmp_path):
    assert not found(tmp_path / "alike", alike)
    assert not found(
        tmp_path / "mixed", lambda n, sick: (f"{n // 2 % 2}/{n}.png", 8 + n // 2 % 2 * 8, 80)
    )


def test_few_images_with_the_label_are_enough(tmp_path):
    """5 of 40: too few for a chi-squared test, not for Fisher's."""
    sick = np.arange(COUNT) % 8 == 0
    (finding,) = found(tmp_path, PLACES["bits-go-with-label"][0], sick)
    assert "p < 0.001" in finding.sentence


def test_one_odd_image_hides_nothing(tmp_path):
    """A third value of one image would leave the chi-squared test too few expected images."""

    def place(n, sick):
        return (f"{n}.bmp", 8, 80) if n == 7 else (f"{n}.{'jpg' if sick else 'png'}", 8, 80)

    (finding,) = found(tmp_path, place)
    assert "BMP" not in finding.sentence


def test_images_of_one_patient_are_one_image(tmp_path):
    """All 16-bit images are of one patient, who has the label: that is one observation."""
    patients = ["p" if n % 2 else f"q{n}" for n in range(COUNT)]
    assert not found(tmp_path, PLACES["bits-go-with-label"][0], patients=patients)


def test_many_sizes_are_compared_by_their_quarter(tmp_path):
    (finding,) = found(tmp_path, lambda n, sick: (f"{n}.png", 8, (300 if sick else 100) + n))
    assert finding.name == "size-goes-with-label"
    assert "100.0% of the images of at most 0.02 megapixels" in finding.sentence


def test_folders_that_are_labels_or_splits_are_no_origin(tmp_path):
    def by_class(n, sick):
        return f"{'EDEMA' if sick else 'Normal'}/{n}.png", 8, 80

    def by_split(n, sick):
        return f"{'train' if sick else 'test_images'}/{n}.png", 8, 80

    def by_hospital(n, sick):
        return f"{'EDEMA' if sick else 'Normal'}/{'Hue' if sick else 'Hanoi'}/{n}.png", 8, 80

    assert not found(tmp_path / "class", by_class)
    assert not found(tmp_path / "split", by_split)
    (finding,) = found(tmp_path / "hospital", by_hospital, named=True)
    assert "0.0% of folder Hanoi, 100.0% of folder Hue" in finding.sentence
