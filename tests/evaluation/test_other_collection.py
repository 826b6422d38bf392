"""A model on another collection: prevalence, and recalibration on a share of its patients."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from fluoroscope.errors import InputError
from fluoroscope.evaluation.contents import as_json
from fluoroscope.evaluation.other_collection import (
    draw_patients,
    other_collection,
    recalibrate,
)
from fluoroscope.evaluation.scoring import Settings, score_table
from fluoroscope.trained.calibration import LabelCalibration


def shifted(rng, images=3000, slope=1.7, intercept=-1.2):
    """Predictions that are right after logit -> slope x logit + intercept; two per patient."""
    logit = rng.normal(0, 1.5, images)
    truth = (rng.random(images) < expit(slope * logit + intercept)).astype(float)
    group = np.arange(images) // 2
    return pd.DataFrame({"group": group, "Mass": truth, "Mass_probability": expit(logit)})


def before(images=100, positives=50):
    return {"Mass": LabelCalibration(1.0, (1.0, 0.0), images, positives, {}, {})}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_the_patients_is_drawn_with_all_their_images(share):
    group = np.repeat(np.arange(200), 3)[np.random.default_rng(0).permutation(600)]
    drawn = draw_patients(group, share)
    assert len(np.unique(group[drawn])) == share * 200
    assert not {*group[drawn]} & {*group[~drawn]}
    assert (drawn == draw_patients(group, share)).all()


@pytest.mark.parametrize(("share", "told"), [(0.01, "nobody to fit on"), (0.99, "nobody to score")])
def test_a_share_that_is_nobody_or_everybody_is_refused(share, told):
    with pytest.raises(InputError, match=rf"recalibrate={share} of 9 patients leaves {told}"):
        draw_patients(np.arange(9), share)


def test_a_planted_shift_is_recovered_and_the_other_patients_are_scored():
    table = shifted(np.random.default_rng(1))
    drawn = draw_patients(table["group"].to_numpy(), 0.5)
    found = recalibrate(table[drawn], table[~drawn], ["Mass"], before(), 0.5)
    own = found.labels["Mass"]
    assert own.slope == pytest.approx(1.7, abs=0.25)
    assert own.intercept == pytest.approx(-1.2, abs=0.2)
    x = np.log(table["Mass_probability"] / (1 - table["Mass_probability"])).to_numpy()[:, None]
    fit = LogisticRegression(C=np.inf).fit(x[drawn], table["Mass"][drawn])
    p = fit.predict_proba(x[~drawn])[:, 1]
    truth = table["Mass"][~drawn]
    assert own.after.brier.value == pytest.approx(brier_score_loss(truth, p), abs=1e-3)
    raw = table["Mass_probability"][~drawn]
    assert own.before.brier.value == pytest.approx(brier_score_loss(truth, raw))
    assert own.after.ece.value < 0.05 < own.before.ece.value
    assert (found.images, found.patients) == (drawn.sum(), 750)
    assert (own.images, own.positives) == (drawn.sum(), table["Mass"][drawn].sum())


def test_before_is_what_the_model_gives_with_its_own_temperature():
    table = shifted(np.random.default_rng(2), 600)
    drawn = draw_patients(table["group"].to_numpy(), 0.3)
    calibration = {"Mass": before()["Mass"]._replace(temperature=2.0)}
    own = recalibrate(table[drawn], table[~drawn], ["Mass"], calibration, 0.3).labels["Mass"]
    raw = table["Mass_probability"][~drawn]
    p = expit(np.log(raw / (1 - raw)) / 2)
    assert own.before.brier.value == pytest.approx(brier_score_loss(table["Mass"][~drawn], p))


def test_a_label_with_few_positive_patients_is_not_fitted_again():
    table = shifted(np.random.default_rng(3), 400)
    drawn = draw_patients(table["group"].to_numpy(), 0.2)
    positive = table.index[drawn & (table["Mass"] == 1)]
    table.loc[positive[7:], "Mass"] = np.nan
    own = recalibrate(table[drawn], table[~drawn], ["Mass"], before(), 0.2).labels["Mass"]
    assert own.why_not.startswith("only 7 positive images of ")
    assert own.before is own.after is None


def test_a_shift_of_prevalence_is_said_and_the_content_is_json():
    table = shifted(np.random.default_rng(4), 800)
    scores, _ = score_table(table, ["Mass"], {}, Settings(()))
    drawn = draw_patients(table["group"].to_numpy(), 0.3)
    again = recalibrate(table[drawn], table[~drawn], ["Mass"], before(), 0.3)
    found = other_collection("nih14", {"Mass": "mass"}, scores, before(positives=80), again)
    share = table["Mass"].mean()
    assert found.prevalence["Mass"].here.value == pytest.approx(share)
    assert found.sentences[0] == (
        f"Mass is less common here ({share:.1%}) than in the model's validation (80.0%)"
    )
    assert found.sentences[1].startswith("recalibrated, Mass has a calibration error of 0.")
    assert as_json(found)["recalibration"]["labels"]["Mass"]["after"]["ece"]["value"] > 0
    same = other_collection("nih14", {}, scores, before(1000, round(1000 * share)), None)
    assert same.sentences == []
