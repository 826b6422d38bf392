"""What an evaluation says about its own numbers."""

import pytest

from fluoroscope.evaluation.assembly import make_evaluation
from fluoroscope.evaluation.contents import as_json
from fluoroscope.evaluation.scoring import Settings
from fluoroscope.evaluation.wording import not_judged
from fluoroscope.trained.calibration import fit_calibration, logit, sigmoid
from tests.evaluation.cases import predictions

RESULT = {
    **{"labels": ["Disc"], "source": "folder", "split": "test", "split_fingerprint": ""},
    **{"test": {"patients": 90}, "patients_compared": True},
}


@pytest.mark.parametrize(("factor", "worse"), [(1.0, False), (1 / 6, True)])
def test_a_calibration_that_makes_probabilities_worse_is_said(factor, worse):
    table = predictions()
    table["Disc_probability"] = sigmoid(3 * logit(table["Disc_probability"]))  # too sure
    fitted = fit_calibration(table, ["Disc"], "", "", ["youden"])
    label = fitted.labels["Disc"]
    used = label._replace(temperature=factor * label.temperature)
    made = make_evaluation(
        RESULT, table, "", fitted._replace(labels={"Disc": used}), Settings(["youden"])
    )
    said = [note for note in made.notes if "worse on these images" in note]
    quality = made.labels["Disc"]
    assert bool(said) == worse
    assert worse == (quality.after.log_loss.value > quality.before.log_loss.value)
    assert all("of 1 label (Disc)" in note for note in said)


def test_a_calibration_that_changes_nothing_is_not_called_worse():
    table = predictions()
    fitted = fit_calibration(table, ["Disc"], "", "", ["youden"])
    same = fitted.labels["Disc"]._replace(temperature=1.0)
    made = make_evaluation(
        RESULT, table, "", fitted._replace(labels={"Disc": same}), Settings(["youden"])
    )
    assert made.notes == []


@pytest.mark.parametrize("strength", [1.5, -1.5])
def test_operating_points_that_do_not_exist_are_named(strength):
    validation = predictions(seed=5, strength=strength, patients=300)
    names = ["youden", "sensitivity_90"]
    fitted = fit_calibration(validation, ["Disc"], "", "", names)
    made = make_evaluation(RESULT, predictions(), "", fitted, Settings(names))
    said = [note for note in made.notes if note.startswith("operating points that 1 label")]
    exist = [name for name in names if name in made.labels["Disc"].points]
    assert ("youden" in exist) == (strength > 0)
    assert "sensitivity_90" in exist
    assert bool(said) == (strength < 0)
    assert all("(Disc: Youden)" in note for note in said)


def test_a_label_that_is_not_judged_is_named():
    rare = predictions().assign(Rare=0.0, Rare_probability=0.1)
    made = make_evaluation(
        {**RESULT, "labels": ["Disc", "Rare"]}, rare, "", None, Settings(["youden"])
    )
    assert not_judged(as_json(made)["labels"]) == [
        "Rare: not judged: 0 positive images; 10 images of each class, of 10 patients, are needed"
    ]
