"""What the page shows of a film is what the model computes, and names no patient."""

import base64
import re

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from fluoroscope.demo import film as shown_film
from fluoroscope.demo.film import WARNINGS, Examiner
from fluoroscope.demo.story import answer, page
from fluoroscope.errors import InputError
from fluoroscope.files.images import fit_square, read_image
from fluoroscope.prediction.predictor import load
from fluoroscope.trained.inputs import FLAGS

FILM = get_testdata_file("RG1_UNCR.dcm", download=False)  # a real chest film, MONOCHROME1


@pytest.fixture(scope="module")
def predictor(trained_run):
    return load(trained_run, accelerator="cpu")


@pytest.fixture(scope="module")
def examiner(predictor):
    return Examiner(predictor)


@pytest.fixture(scope="module")
def data():
    with open(FILM, "rb") as file:
        return file.read()


def pixels_of(uri):
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_a_real_dicom_film_is_shown_with_the_numbers_of_predict(examiner, predictor, data):
    shown = examiner.examine(data)
    (label,) = predictor.labels
    found = predictor.predict(data)
    assert found == predictor.predict(FILM)
    decision = {True: "above", False: "below"}[found.decision[label]]
    assert shown.findings.rows == [
        [label, f"{found.probability[label]:.3f}", f"{predictor.thresholds[label]:.3f}", decision]
    ]
    assert shown.headline.startswith(f"{label}: probability {found.probability[label]:.3f}, ")
    assert len(shown.warnings) == len(found.flags)


def test_the_pictures_are_the_input_of_the_network_and_its_map(examiner, data):
    shown = examiner.examine(data)
    side = examiner.predictor.trained.image_px
    square = fit_square(read_image(FILM), side)
    picture, overlay = pixels_of(shown.picture), pixels_of(shown.overlay)
    assert picture.shape == overlay.shape
    expected = cv2.resize(square, picture.shape[:2], interpolation=cv2.INTER_LINEAR)
    assert (picture == expected[..., None]).all()
    assert (overlay != picture).any()
    black = expected == 0  # the margin of a film that is not square has no colour
    outside = np.all(picture[:, :3] == 0) and black[:, :3].all()
    assert outside
    assert (overlay[:, 0] == 0).all()


def test_the_contributions_add_up_to_the_logit(examiner, data):
    (line,) = [line for line in examiner.examine(data).head if line.startswith("The logit")]
    found = re.findall(r"[+-][\d.]+", line.replace("\N{MINUS SIGN}", "-"))
    logit, *parts = map(float, found)
    assert len(parts) == 3
    assert logit == pytest.approx(sum(parts), abs=0.02)


def test_another_label_is_explained_if_it_is_asked_for(examiner, data):
    (label,) = examiner.labels
    assert examiner.examine(data, label).label == label
    with pytest.raises(InputError, match="label must be one of"):
        examiner.examine(data, "Zwerg")


@pytest.mark.parametrize(
    "content", [b"hello", b"\x89PNG\r\n\x1a\n" + bytes(40), b"\0" * 128 + b"DICM" + bytes(9)]
)
def test_what_is_no_film_is_refused_in_one_sentence(examiner, content):
    with pytest.raises(InputError, match="the file cannot be read as a film: ") as refusal:
        examiner.examine(content)
    assert "\n" not in str(refusal.value)


def test_a_film_of_one_colour_is_shown_with_a_warning(examiner):
    png = cv2.imencode(".png", np.full((90, 70), 7, np.uint8))[1].tobytes()
    assert any(line.startswith(WARNINGS["constant"]) for line in examiner.examine(png).warnings)


def test_every_flag_has_its_words():
    assert set(WARNINGS) == set(FLAGS)


def test_without_captum_everything_else_is_shown(predictor, data, monkeypatch):
    def missing():
        raise InputError("explanations need the package captum")

    monkeypatch.setattr(shown_film.maps, "check_captum", missing)
    bare = Examiner(predictor)
    shown = bare.examine(data)
    assert (shown.overlay, shown.units) == ("", Examiner(predictor).examine(data).units)
    assert "There is no overlay: explanations need the package captum" in answer(bare, data, None)


def test_names_of_labels_are_text_on_the_page(predictor, data, monkeypatch):
    monkeypatch.setattr(predictor, "labels", ("<b>&Mass",))
    assert "<option>&lt;b&gt;&amp;Mass</option>" in page(predictor, 64)
    assert "<b>" not in page(predictor, 64).replace("<body>", "")


def test_the_page_says_that_it_is_no_medical_device(predictor):
    assert "This is not a medical device." in page(predictor, 64)
    assert "at most 3 MiB" in page(predictor, 3)
