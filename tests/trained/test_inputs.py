import json
from math import inf

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist, mahalanobis

from fluoroscope.errors import InputError
from fluoroscope.phantom.render import draw
from fluoroscope.trained import inputs
from fluoroscope.trained.film_loader import film, stack, unreadable
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.loading import open_trained

TRAIN, VAL, SIDE_PX = 30, 24, 64


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    """A study table of phantom films, whose last validation film is damaged."""
    root, rows = tmp_path_factory.mktemp("chests"), []
    for patient in range(TRAIN + VAL):
        path = root / f"{patient}.png"
        cv2.imwrite(str(path), draw(patient, 0, (), 0.5, SIDE_PX))
        rows.append((str(path), "train" if patient < TRAIN else "val", "PA"))
    path.write_bytes(b"no film")
    return pd.DataFrame(rows, columns=["path", "split", "view"])


@pytest.fixture(scope="module")
def trained(trained_run):
    return open_trained(trained_run, "cpu")


@pytest.fixture(scope="module")
def stored(trained, chests):
    return json.loads(json.dumps(inputs.measure(trained, chests, num_workers=0)))


def flags_of(trained, stored, *pixels, colour=0.0):
    batch = stack([film(np.ascontiguousarray(each), colour, trained.image_px) for each in pixels])
    ((_, features),) = predict_batches(trained, [batch.image])
    known = inputs.read_inputs(stored, trained.image_px)
    return inputs.flags(known, batch.facts.numpy(), features.numpy())


@pytest.fixture(scope="module")
def others():
    """Films of patients that are neither in training nor in validation."""
    return [draw(patient, 0, (), 0.5, 2 * SIDE_PX) for patient in range(100, 106)]


def test_films_like_those_of_training_have_few_flags(trained, stored, others):
    assert stored["training_images"] == TRAIN
    assert stored["validation_images"] == VAL - 1  # one cannot be read
    assert sum(map(bool, flags_of(trained, stored, *others))) <= 1


def test_negatives_are_inverted_and_no_other_images(trained, stored, others):
    for found in flags_of(trained, stored, *[255 - each for each in others]):
        assert "inverted" in found
        assert not {"not_chest", "lateral"} & {*found}


def page():
    image = np.full((90, 90), 250, np.uint8)
    for y in range(9, 90, 9):
        cv2.putText(image, "findings: none", (2, y), 0, 0.3, 0)
    return image


OTHERS = {
    "noise": np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8),
    "page": page(),
    "ramp": np.tile(np.arange(0, 200, 2, dtype=np.uint8), (80, 1)),
    "disc": cv2.circle(np.zeros((99, 99), np.uint8), (50, 50), 25, 200, -1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_images_are_no_chest_films(trained, stored, name):
    assert "not_chest" in flags_of(trained, stored, OTHERS[name])[0]


def test_a_film_with_one_lung_field_in_the_middle_is_lateral(trained, stored, others):
    halves = [half for each in others for half in (each[:, :64], each[:, 64:])]
    found = flags_of(trained, stored, *halves)
    assert sum("lateral" in each for each in found) >= len(found) / 2


def test_no_film_is_lateral_if_training_had_such_films(trained, chests, others):
    table = chests.assign(view=["Lateral", *chests["view"][1:]])
    stored = inputs.measure(trained, table, num_workers=0)
    assert stored["limits"]["lateral"] is None
    halves = [half for each in others for half in (each[:, :64], each[:, 64:])]
    assert not any("lateral" in each for each in flags_of(trained, stored, *halves))


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_constant_film_has_no_flag_of_its_content(trained, stored, level):
    blank = np.full((300, 200), level, np.uint8)
    assert flags_of(trained, stored, blank) == [["constant"]]
    assert flags_of(trained, {}, blank) == [["constant"]]


def test_size_and_colour_are_judged_without_statistics(trained, stored, others):
    small = cv2.resize(others[0], (40, 40), interpolation=cv2.INTER_AREA)
    assert "tiny" in flags_of(trained, stored, small)[0]
    assert flags_of(trained, {}, small) == [["tiny"]]
    assert flags_of(trained, {}, others[0], colour=0.3) == [["colour"]]
    assert flags_of(trained, {}, others[0], colour=float("nan")) == [[]]
    assert flags_of(trained, {}, 255 - others[0], OTHERS["noise"]) == [[], []]


def test_the_small_films_of_a_collection_are_not_tiny_in_it():
    scores = {name: np.full(200, -28.0 if name == "tiny" else 0.0) for name in inputs.FLAGS}
    floors = dict.fromkeys(inputs.FLAGS, -inf) | {"tiny": -64.0}
    assert inputs._limits(scores, floors, laterals=False)[0]["tiny"] == -28.0


@pytest.mark.parametrize("count", [9, 120, 730])
def test_the_rate_of_false_alarms_holds_for_further_films(count):
    """The mean over many collections, since one collection's own rate varies around it."""
    rng, shares = np.random.default_rng(count), []
    floors = dict.fromkeys(inputs.FLAGS, -inf)
    for _ in range(400):
        scores = dict.fromkeys(inputs.FLAGS, rng.gamma(2, size=count))
        limits, rates = inputs._limits(scores, floors, laterals=False)
        shares.append((rng.gamma(2, size=500) > limits["unusual"]).mean())
    rate = rates["unusual"]
    assert rate == max(1, int(0.01 * (count + 1))) / (count + 1)
    assert abs(np.mean(shares) - rate) < 4 * np.std(shares) / 20


def test_the_distances_are_those_of_scipy(trained, stored):
    known = inputs.read_inputs(stored, trained.image_px)
    rng = np.random.default_rng(0)
    grays, features = rng.normal(size=(5, 64)), rng.normal(size=(7, known.kinds.shape[1]))
    precision = known.gray_precision
    expected = [mahalanobis(each, known.gray_mean, precision) ** 2 for each in grays]
    assert inputs._gray_distance(known, grays) == pytest.approx(expected)
    cosine = cdist(features, known.kinds, "cosine").min(axis=1)
    assert inputs._feature_distance(known, features) == pytest.approx(cosine, abs=1e-3)


def test_a_collection_without_readable_films_has_no_statistics(trained, chests):
    assert inputs.measure(trained, chests[chests["split"] == "train"], num_workers=0) == {}
    assert inputs.measure(trained, chests.iloc[[0, len(chests) - 1]], num_workers=0) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"limits": {}},
        {"kinds": "AAA"},
        {"gray_mean": "zz"},
        {"features": 7},
        {"false_alarm_rates": None},
    ],
)
def test_damaged_statistics_are_refused(stored, change):
    with pytest.raises(InputError, match="scripts/evaluate"):
        inputs.read_inputs(stored | change, 64)


def test_a_file_that_cannot_be_read_has_no_flags(trained, stored):
    batch = stack([unreadable("it is empty", trained.image_px)])
    known = inputs.read_inputs(stored, trained.image_px)
    features = np.zeros((1, known.kinds.shape[1]))
    assert inputs.flags(known, batch.facts.numpy(), features) == [[]]
