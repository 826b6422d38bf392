"""What is said beside a score: unknown patients, few images, one patient."""

import math

import numpy as np
import pandas as pd
import pytest

from fluoroscope.run.score_limits import images_text, interval_text, score_limits


def predictions(positive, negative, patients=None):
    """Images with a label `A` and without it; each of another patient, or of these patients."""
    truth = np.r_[np.ones(positive), np.zeros(negative)]
    group = np.arange(len(truth)) if patients is None else patients
    return pd.DataFrame({"group": group, "A": truth, "A_probability": 0.5})


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((10, 10), ""),
        ((9, 30), "A has 9 positive images of 9 patients"),
        ((30, 4), "A has 4 negative images of 4 patients"),
        ((0, 30), "A has 0 positive images of 0 patients"),
        ((3, 2), "A has 3 positive images of 3 patients and 2 negative images of 2 patients"),
    ],
)
def test_fewer_than_ten_images_of_a_class_are_told(counts, told):
    few = f"the images are too few for a reliable score: {told}"
    assert score_limits(predictions(*counts), ["A"]) == ([few] if told else [])


def test_many_images_of_few_patients_are_few():
    patients = [*np.repeat(range(3), 8), *range(100, 130)]
    (few,) = score_limits(predictions(24, 30, patients), ["A"])
    assert few.endswith(": A has 24 positive images of 3 patients")
    assert len(score_limits(predictions(24, 30, patients), ["A"], "some")) == 2


def test_images_of_one_patient_are_told_to_give_no_interval():
    few, alone = score_limits(predictions(24, 30, [7] * 24 + [*range(100, 130)]), ["A"])
    assert few.endswith("A has 24 positive images of 1 patient")
    assert alone.endswith("because the positive images of A are all of one patient")
    unknown, few, alone = score_limits(predictions(30, 1), ["A"], "none")
    assert unknown.startswith("patients are unknown: ")
    assert few.endswith("A has 1 negative image")
    assert alone.endswith("because the negative images of A are all one image")


def test_a_label_that_is_nowhere_known_has_no_limits():
    table = predictions(0, 20).assign(A=np.nan)
    assert score_limits(table, ["A"]) == []


def test_an_interval_is_not_printed_without_its_doubts():
    test = {"auroc_low": 0.81234, "auroc_high": 0.9}
    assert interval_text(test) == "95 % interval 0.812 to 0.900"
    marked = interval_text(test | {"interval_too_narrow": True})
    assert marked == "95 % interval 0.812 to 0.900, too narrow"
    assert interval_text({"auroc_low": math.nan, "auroc_high": math.nan}) == "no 95 % interval"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({}, "on 140 x-rays of 90 patients the model has not seen"),
        ({"source": "phantom"}, "on 140 synthetic phantom x-rays of 90 patients the model has"),
        ({"split": "val"}, "on 140 x-rays of 90 patients"),
        ({"patients_known": "none"}, "on 140 x-rays the model has not seen"),
        ({"patients_known": "none", "split": "val"}, "on 140 x-rays"),
        (
            {"patients_known": "some"},
            "on 140 x-rays of at most 90 patients, images the model has not seen",
        ),
        ({"patients_known": "some", "split": "val"}, "on 140 x-rays of at most 90 patients"),
        (
            {"split": "all", "patients_compared": False},
            "on 140 x-rays of 90 patients, images the model has not seen",
        ),
        ({"split": "all", "patients_compared": True}, "on 140 x-rays of 90 patients the model has"),
    ],
)
def test_patients_are_unseen_only_if_they_are_known(result, text):
    patients = None if result.get("patients_known") == "none" else 90
    written = images_text(
        {"source": "table", "test": {"images": 140, "patients": patients}, **result}
    )
    assert written.startswith(text)
    assert ("patients the model" in written) == ("patients the model" in text)
