"""An evaluation with everything: an ensemble, groups, another model, another collection."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss, roc_auc_score

from fluoroscope.errors import InputError
from tests.support.films import write_films
from tests.test_evaluate import evaluated

POINT = "points=[youden]"


def logit(p):
    return np.log(p / (1 - p))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """120 films of 40 patients as a table with columns of its own."""
    root = write_films(tmp_path_factory.mktemp("hospital"), seed=5)
    rows = []
    for n, path in enumerate(sorted(root.rglob("*.png"))):
        patient = path.stem.partition("_")[0]
        ill = path.parent.name == "BLOB"
        rows.append(
            {
                "path": str(path.relative_to(root)),
                "patient": f"H{patient}",
                "Blob": int(ill),
                "scanner": ("GE", "Philips")[n % 2],
                "sex": ("f", "m")[int(patient[1:]) // 2 % 2],
            }
        )
    pd.DataFrame(rows).to_csv(root / "own.csv", index=False)
    return [
        *("data=table", f"data.root={root}", "data.csv=own.csv", "data.patient_column=patient"),
        *("split=all", "already_seen=allow", "trainer.accelerator=cpu", POINT),
    ]


def content(folder, name="evaluation.json"):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def alone(trained_run, second_run, hospital, tmp_path_factory):
    """The predictions of the two models, each alone, and their temperatures."""
    found = []
    for run in (trained_run, second_run):
        folder = tmp_path_factory.mktemp("alone")
        evaluated(folder, f"checkpoint={run}", *hospital, "subgroups=[]")
        table = pd.read_csv(folder / "predictions/all.csv")
        own = content(folder)["labels"]["BLOB"]["calibration"]
        found.append((table, own["temperature"]["value"]))
    return found


@pytest.fixture(scope="module")
def everything(trained_run, second_run, fold_run, hospital, tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    models = [f"checkpoint=[{trained_run},{second_run}]", f"against={fold_run}"]
    more = ["subgroups=[sex,scanner]", "recalibrate=0.3", "margin=0.05"]
    evaluated(folder, *models, *hospital, *more)
    return folder


def test_an_ensemble_is_the_mean_of_calibrated_probabilities(
    everything, alone, trained_run, second_run
):
    table = pd.read_csv(everything / "predictions/all.csv")
    means = np.mean([expit(logit(t["BLOB_probability"]) / T) for t, T in alone], axis=0)
    np.testing.assert_allclose(table["BLOB_probability"], means[table["row"]], atol=1e-6)
    found = content(everything)
    assert found["labels"]["BLOB"]["auroc"]["value"] == pytest.approx(
        roc_auc_score(table["BLOB"], table["BLOB_probability"])
    )
    assert content(everything, "result.json")["test"]["auroc"] == pytest.approx(
        found["labels"]["BLOB"]["auroc"]["value"]
    )
    assert len(found["ensemble"]["auroc"]) == 2
    assert found["ensemble"]["fingerprints"][0] == found["fingerprint"]
    assert found["ensemble"]["thresholds"].startswith("chosen on the validation split")
    given = content(everything, "result.json")["checkpoint"]
    assert given == f"{trained_run} + {second_run}"
    assert not (everything / "calibration.json").exists()
    assert not list(everything.rglob("*wandb*"))


def test_patients_for_recalibration_are_not_scored(everything, alone):
    table = pd.read_csv(everything / "predictions/all.csv")
    whole = alone[0][0]
    aside = whole[~whole["row"].isin(table["row"])]
    assert not {*aside["group"]} & {*table["group"]}
    assert aside["group"].nunique() == 12
    found = content(everything)["collection"]
    assert (found["recalibration"]["patients"], found["recalibration"]["images"]) == (12, 36)
    assert found["names"] == {"BLOB": "Blob"}
    again = found["recalibration"]["labels"]["BLOB"]
    assert again["why_not"] == "" or "to fit on" in again["why_not"]
    before = brier_score_loss(table["BLOB"], table["BLOB_probability"])
    assert content(everything)["labels"]["BLOB"]["brier"]["value"] == pytest.approx(before)


def test_groups_come_from_the_columns_of_the_table(everything, hospital):
    table = pd.read_csv(everything / "predictions/all.csv")
    rows = content(everything)["subgroups"]["groups"]
    assert [(row["attribute"], row["group"]) for row in rows] == [
        *(("sex", "F"), ("sex", "M"), ("scanner", "GE"), ("scanner", "Philips")),
    ]
    own = pd.read_csv(hospital[1].partition("=")[2] + "/own.csv").iloc[table["row"]]
    for row in rows:
        if row["attribute"] == "scanner":
            inside = (own["scanner"] == row["group"]).to_numpy()
            part = table[inside]
            assert row["images"] == inside.sum()
            if row["judged"]:
                auroc = roc_auc_score(part["BLOB"], part["BLOB_probability"])
                assert row["auroc"]["value"] == pytest.approx(auroc)


def test_another_model_is_compared_on_the_same_images(everything, fold_run, hospital, tmp_path):
    found = content(everything)["against"]
    evaluated(tmp_path, f"checkpoint={fold_run}", *hospital, "subgroups=[]")
    table = pd.read_csv(everything / "predictions/all.csv")
    other = pd.read_csv(tmp_path / "predictions/all.csv").set_index("row").loc[table["row"]]
    (pair,) = found["pairs"]
    assert pair["other_auroc"]["value"] == pytest.approx(
        roc_auc_score(other["BLOB"], other["BLOB_probability"])
    )
    assert pair["auroc"]["value"] == pytest.approx(
        roc_auc_score(table["BLOB"], table["BLOB_probability"])
    )
    assert f"the model with the weights {found['fingerprint']}" in found["sentences"][0]
    assert found["margin"] == 0.05
    assert found["images"] == len(table)


def test_what_an_evaluation_lacks_is_refused_before_anything_is_written(
    trained_run, second_run, fold_run, hospital, tmp_path
):
    with pytest.raises(InputError, match=r"has no 'site'.*; it has BLOB, path, patient, Blob, sc"):
        evaluated(tmp_path / "a", f"checkpoint={trained_run}", *hospital, "subgroups=[site]")
    with pytest.raises(InputError, match="leaves nobody to fit on"):
        evaluated(tmp_path / "b", f"checkpoint={trained_run}", *hospital, "recalibrate=0.001")
    for name in "ab":
        assert not [path for path in (tmp_path / name).rglob("*") if path.is_file()]


def test_a_model_against_itself_is_equivalent_on_its_own_data(trained_run, tmp_path):
    evaluated(tmp_path, f"checkpoint={trained_run}", f"against={trained_run}", POINT)
    found = content(tmp_path)["against"]
    assert found["left_out"] == 0
    (pair,) = found["pairs"]
    if not pair["why_not"]:
        assert pair["difference"] == {"value": 0, "low": 0, "high": 0}
        assert pair["finding"] == "equivalent"
