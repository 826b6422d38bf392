"""An evaluation leaves JSON, CSV, a page and a calibration, which later evaluations use again."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.evaluation import calibrating
from fluoroscope.evaluation.contents import estimates
from fluoroscope.evaluation.writing import COLUMNS, score_table
from fluoroscope.run.run_folder import finite
from fluoroscope.trained.calibration import read_calibration, save_calibration
from fluoroscope.trained.loading import open_trained
from fluoroscope.trained.stored_calibration import load_calibration
from tests.evaluation.test_contents import evaluation
from tests.test_evaluate import evaluated, films, table, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose test split can be judged, evaluated once."""
    root = tmp_path_factory.mktemp("files")
    studies = pd.read_csv(films(root / "films", 80) / "studies.csv")
    studies["split"] = ["train"] * 24 + ["val"] * 24 + ["test"] * 32
    studies.to_csv(root / "films/studies.csv", index=False)
    columns = ("data.patient_column=patient", "data.split_column=split")
    trained(root / "run", *table(root / "films", *columns))
    words = [f"checkpoint={root}/run", "prevalence=0.02", "points=[specificity_80,sensitivity_85]"]
    evaluated(root / "first", *words)
    return root


def content(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_a_run_folder_is_evaluated_and_its_calibration_is_kept(run):
    kept = read_calibration(run / "run/calibration.json")
    assert kept == read_calibration(run / "first/calibration.json")
    assert kept.fingerprint == open_trained(run / "run", "cpu").fingerprint
    (own,) = kept.labels.values()
    assert {"youden", "sensitivity_85", "specificity_95"} <= set(own.points)
    assert kept.inputs["training_images"] > 0
    assert {p.name for p in (run / "first").iterdir()} >= {
        *("evaluation.json", "evaluation.csv", "evaluation.html", "result.json", "predictions")
    }


def test_the_file_says_what_the_predictions_say(run):
    values, rows = content(run / "first"), pd.read_csv(run / "first/predictions/test.csv")
    (name, own), *_ = values["labels"].items()
    kept = read_calibration(run / "run/calibration.json").labels[name]
    assert own["positives"] == rows[name].sum()
    temperature = own["calibration"]["temperature"]
    assert temperature["value"] == kept.temperature
    assert [temperature["low"], temperature["high"]] == finite(kept.temperature_bounds)
    assert list(own["points"]) == ["specificity_80", "sensitivity_85"]
    point = own["points"]["sensitivity_85"]
    called = rows[f"{name}_probability"] >= point["raw_threshold"]
    assert point["tp"]["value"] == (called & (rows[name] == 1)).sum()
    assert point["at_prevalence"]["prevalence"] == 0.02
    result = json.loads((run / "first/result.json").read_text())["test"]
    assert own["auroc"]["value"] == pytest.approx(result["auroc"])
    assert own["auroc"]["low"] == result["auroc_low"]
    assert values["macro"]["auroc"] == own["auroc"]


def test_a_second_evaluation_uses_the_stored_calibration_as_it_is(run, tmp_path):
    kept = read_calibration(run / "run/calibration.json")
    label = next(iter(kept.labels))
    changed = kept._replace(labels={label: kept.labels[label]._replace(temperature=7.0)})
    save_calibration(run / "run", changed)
    evaluated(tmp_path / "again", f"checkpoint={run}/run")
    own = content(tmp_path / "again")["labels"][label]
    assert own["calibration"]["temperature"]["value"] == 7
    save_calibration(run / "run", kept)


def test_a_calibration_of_other_weights_is_never_replaced(run, tmp_path, capsys):
    kept = read_calibration(run / "run/calibration.json")
    foreign = kept._replace(fingerprint="0" * 16)
    save_calibration(run / "run", foreign)
    beside = run / "run/checkpoints/calibration.json"
    try:
        with pytest.raises(InputError, match=r"belongs to other weights than .*; run python"):
            load_calibration(open_trained(run / "run", "cpu"))
        evaluated(tmp_path / "again", f"checkpoint={run}/run")
        assert read_calibration(run / "run/calibration.json") == foreign
        assert load_calibration(open_trained(run / "run", "cpu")) == read_calibration(beside)
        told = " ".join(capsys.readouterr().out.split())
    finally:
        save_calibration(run / "run", kept)
        beside.unlink(missing_ok=True)
    assert read_calibration(tmp_path / "again/calibration.json").fingerprint == kept.fingerprint
    assert "belongs to other weights and stays as it is" in told


def test_another_point_is_added_to_those_that_are_stored(run, tmp_path):
    before = read_calibration(run / "run/calibration.json")
    evaluated(tmp_path / "again", f"checkpoint={run}/run", "points=[sensitivity_70]")
    after = read_calibration(run / "run/calibration.json")
    (label,) = after.labels
    assert after.labels[label].points.items() > before.labels[label].points.items()
    assert "sensitivity_70" in after.labels[label].points
    assert after.labels[label].temperature == before.labels[label].temperature


def test_places_that_are_all_taken_are_named(run, tmp_path):
    opened, kept = open_trained(run / "run", "cpu"), read_calibration(run / "run/calibration.json")
    trained = opened._replace(place=tmp_path / "run/checkpoints/last.ckpt", folder=tmp_path / "run")
    places = [trained.folder, trained.place.parent]
    trained.place.parent.mkdir(parents=True)
    for place in places:
        save_calibration(place, kept._replace(fingerprint="0" * 16))
    told = calibrating.keep(trained, kept, tmp_path)
    one, two = (place / "calibration.json" for place in places)
    assert told == (
        f"{tmp_path}/calibration.json; {one} and {two} belong to other weights and stay as they are"
    )
    with pytest.raises(InputError, match=f"belong to other weights .*; remove {two}, and run"):
        load_calibration(trained)
    save_calibration(trained.place.parent, kept)
    assert load_calibration(trained) == kept
    assert calibrating.keep(trained, kept, tmp_path).startswith(f"{two}; {one} belongs")


def test_a_folder_that_cannot_be_written_is_said(run, tmp_path, monkeypatch):
    opened, kept = open_trained(run / "run", "cpu"), read_calibration(run / "run/calibration.json")
    save = calibrating.save_calibration

    def only_here(folder, calibration):
        if folder != tmp_path:
            raise PermissionError(13, "Permission denied")
        save(folder, calibration)

    monkeypatch.setattr(calibrating, "save_calibration", only_here)
    told = calibrating.keep(opened, kept._replace(inputs={"x": 1}), tmp_path)
    assert told == f"{tmp_path}/calibration.json; {run}/run cannot be written (Permission denied)"
    assert read_calibration(tmp_path / "calibration.json").inputs == {"x": 1}


def test_the_predictions_of_validation_are_those_of_the_best_checkpoint_alone(run, tmp_path):
    folder = tmp_path / "run"
    for name in ("config.yaml", "checkpoints/best.ckpt", "predictions/val.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((run / "run" / name).read_bytes())
    (folder / "checkpoints/last.ckpt").write_bytes((folder / "checkpoints/best.ckpt").read_bytes())
    best, last = (open_trained(folder / f"checkpoints/{n}.ckpt", "cpu") for n in ("best", "last"))
    assert load_calibration(best) is not None
    assert load_calibration(last) is None
    (folder / "checkpoints/best.ckpt").unlink()
    assert load_calibration(last) is not None


def same(in_table, in_json):
    return in_table in ("", "inf") if in_json is None else float(in_table) == in_json


def test_the_table_has_a_row_for_each_number(run):
    found = pd.read_csv(run / "first/evaluation.csv", keep_default_na=False)
    assert tuple(found.columns) == COLUMNS
    own = content(run / "first")
    (name, label), *_ = own["labels"].items()
    rows = found[(found["label"] == name) & (found["point"] == "specificity_80")].set_index("score")
    for score in ("sensitivity", "lr_positive", "tn", "net_benefit"):
        for end in ("value", "low", "high"):
            stored, expected = rows[end][score], label["points"]["specificity_80"][score][end]
            assert stored in ("", "inf") if expected is None else float(stored) == expected
    there = label["points"]["specificity_80"]["at_prevalence"]
    for score in ("ppv", "npv", "net_benefit"):
        assert same(rows["high"][f"at_prevalence_{score}"], there[score]["high"])
    before = found[(found["label"] == name) & (found["score"] == "brier_before")]
    assert float(before["value"].iloc[0]) == label["before"]["brier"]["value"]
    assert set(found["label"]) == {name, "macro"}


def test_the_table_names_labels_that_are_not_judged():
    few = evaluation()
    found = score_table(few)
    assert len(found[found["label"] == "Disc"]) == len(list(estimates(few.labels["Disc"])))
    assert math.isnan(found["value"].iloc[0])
    assert np.isfinite(found[found["label"] == "macro"]["value"].iloc[0])
