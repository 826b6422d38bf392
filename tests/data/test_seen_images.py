"""The images of which a checkpoint knows the pixels or the patient."""

import numpy as np
import pandas as pd
import pytest

from fluoroscope.data.leakage import seen_images, training_marks
from fluoroscope.data.study_table import Studies, study_table


def studies(patients, pixels, splits, fingerprint="one", patients_of="hospital"):
    paths = [f"/films/{n}.png" for n in range(len(patients))]
    labels = pd.DataFrame({"Mass": np.arange(len(patients)) % 2})
    table = study_table(paths, labels, patients, splits)
    survey = pd.DataFrame({"exact": np.asarray(pixels, np.int64)}).assign(
        **{f"perceptual_{i}": np.arange(len(patients), dtype=np.uint64) for i in range(4)}
    )
    return Studies(table, ["Mass"], fingerprint, 0, survey, (), patients_of)


def people(numbers):
    return [f"{number:07}" for number in numbers]


@pytest.fixture
def checkpoint():
    """Trained on the patients 0 to 49, with the pixels 1000 to 1049."""
    return training_marks(studies(people(range(50)), range(1000, 1050), ["train"] * 50))


def test_patients_and_pixels_of_the_training_are_seen(checkpoint):
    # Two images each of the patients 40 to 59; patient 59 has an image that was in the training.
    pixels = np.arange(40)
    pixels[-1] = 1003
    other = studies(people(np.repeat(range(40, 60), 2)), pixels, ["test"] * 40, "two")
    seen = seen_images(checkpoint, other, "test")
    assert seen.tolist() == [True] * 20 + [False] * 18 + [True] * 2
    alike = seen_images(checkpoint, other, "test", allow_alike=True)
    assert alike.tolist() == [False] * 38 + [True] * 2  # other people with the same numbers


def test_only_the_split_that_is_scored_counts(checkpoint):
    splits = ["train", "test"] * 20
    other = studies(people(range(30, 70)), range(40), splits, "two")
    assert seen_images(checkpoint, other, "test").tolist() == [True] * 10 + [False] * 10
    assert len(seen_images(checkpoint, other, "all")) == 40


def test_the_own_test_split_is_unseen_and_another_hospital_has_other_people(checkpoint):
    own = studies(people(range(50)), range(1000, 1050), ["test"] * 50)
    assert not seen_images(checkpoint, own, "test").any()
    assert seen_images(checkpoint, own, "all").all()
    elsewhere = studies(people(range(50)), range(50), ["test"] * 50, "two", "clinic")
    assert not seen_images(checkpoint, elsewhere, "test").any()
    unknown = studies(people(range(50)), range(50), ["test"] * 50, "two", None)
    assert not seen_images(checkpoint, unknown, "test").any()
