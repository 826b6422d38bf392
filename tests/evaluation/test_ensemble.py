"""Several models as one: the mean of their calibrated probabilities."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from fluoroscope import build
from fluoroscope.config.train import check_train
from fluoroscope.errors import InputError
from fluoroscope.evaluation.ensemble import JOINT, MEANS, Part, joint_calibration, part_of
from fluoroscope.evaluation.members import Member, logits_of, open_member, unseen_by
from fluoroscope.evaluation.other_models import open_others
from fluoroscope.run.resume import load_checkpoint
from fluoroscope.trained.calibration import (
    Calibration,
    LabelCalibration,
    fit_calibration,
    save_calibration,
)
from fluoroscope.trained.loading import open_trained
from fluoroscope.trained.operating_points import choose_point
from fluoroscope.trained.stored_calibration import load_calibration


@pytest.fixture(scope="module")
def own(trained_run):
    """The checkpoint of the first model, and its studies."""
    from omegaconf import OmegaConf

    checkpoint = load_checkpoint(trained_run / "checkpoints/best.ckpt")
    return checkpoint, build.build_studies(check_train(OmegaConf.create(checkpoint["config"])))


def opened(place, own):
    return open_member(str(place), own[0], "cpu")


def test_a_member_gives_the_predictions_of_its_own_run(second_run, own):
    studies = own[1]
    member = opened(second_run, own)
    assert member.labels == {"BLOB": "BLOB"}
    assert unseen_by(member, studies, "test", False).all()
    logits = logits_of(member, studies, "test", 5)
    stored = pd.read_csv(second_run / "predictions/test.csv")
    np.testing.assert_allclose(expit(logits[:, 0]), stored["BLOB_probability"], atol=1e-6)


def test_the_points_of_an_ensemble_are_chosen_on_the_mean_of_calibrated_probabilities(
    trained_run, second_run, own
):
    parts = [part_of(opened(place, own), ["BLOB"]) for place in (trained_run, second_run)]
    found, how = joint_calibration(parts, ["BLOB"], ("youden", "sensitivity_90"))
    assert how == JOINT
    means, tables = 0, []
    for place in (trained_run, second_run):
        table = pd.read_csv(place / "predictions/val.csv")
        p = table["BLOB_probability"].to_numpy()
        temperature = fit_calibration(table, ["BLOB"], "", "").labels["BLOB"].temperature
        means = means + expit(np.log(p / (1 - p)) / temperature) / 2
        tables.append(table)
    assert tables[0]["row"].equals(tables[1]["row"])
    for name, threshold in found["BLOB"].points.items():
        truth = tables[0]["BLOB"]
        called, expected = means >= threshold, means >= choose_point(name, means, truth)
        assert (called == expected).all()
    assert found["BLOB"].temperature == 1
    assert found["BLOB"].images == len(tables[0])


def test_models_of_different_splits_use_the_mean_of_their_thresholds(trained_run, fold_run, own):
    parts = [part_of(opened(place, own), ["BLOB"]) for place in (trained_run, fold_run)]
    found, how = joint_calibration(parts, ["BLOB"], ("youden",))
    assert how == MEANS
    each = [load_calibration(part.member.trained).labels["BLOB"].points["youden"] for part in parts]
    assert found["BLOB"].points == {"youden": pytest.approx(np.mean(each))}


def test_a_model_that_lacks_an_operating_point_is_refused(fold_run, own, tmp_path):
    """As for one model; its thresholds cannot be averaged with those of others."""
    run = shutil.copytree(fold_run, tmp_path / "run")
    save_calibration(run, load_calibration(open_trained(run, "cpu"), ["youden"]))
    assert part_of(opened(run, own), ["BLOB"], ["youden"])
    for points in (["sensitivity_90"], ["youden", "specificity_85"]):
        with pytest.raises(InputError, match=f"lacks the operating point {points[-1]}; first run"):
            open_others([str(run)], None, *own, "test", False, "cpu", points)


def test_labels_in_another_order_are_put_in_that_of_the_ensemble():
    own = LabelCalibration(1.0, (1.0, 0.0), 9, 4, {}, {})
    calibration = Calibration({"B": own._replace(temperature=2.0), "a": own}, "", "", {})
    member = Member("x", SimpleNamespace(labels=("B", "a")), {"A": "a", "B": "B"})
    found = Part(member, calibration).probability([[2.0, 3.0]])
    np.testing.assert_allclose(found, expit([[3.0, 1.0]]))


def test_what_a_model_of_another_split_has_seen_is_left_out(fold_run, own):
    new = unseen_by(opened(fold_run, own), own[1], "test", False)
    tested = own[1].table[own[1].table["split"] == "test"]
    theirs = pd.read_csv(fold_run / "predictions/test.csv")["row"]
    assert 0 < new.sum() < len(tested)
    assert set(tested.index[new]) <= set(theirs)


def test_a_model_that_has_seen_all_images_is_refused(trained_run, own):
    others = own[1]._replace(fingerprint="of other splits")
    with pytest.raises(InputError, match="was trained or validated on all images to score"):
        unseen_by(opened(trained_run, own), others, "train", False)


def test_labels_are_paired_by_their_one_name(trained_run, own, tmp_path):
    """The same weights, whose label is called otherwise."""
    state = torch.load(trained_run / "checkpoints/best.ckpt", weights_only=True)
    for name, label_map, expected in [
        ("Effusion", {}, {"Fluid": "Effusion"}),
        ("Pus", {"Pus": "pleural effusion"}, {"Fluid": "Pus"}),
    ]:
        config = state["config"]["data"]
        config |= {"labels": [name], "label_map": label_map}
        torch.save(state, tmp_path / "other.ckpt")
        data = {"labels": ["Fluid"], "source": "folder", "label_map": {"Fluid": "Effusion"}}
        first = {"config": {"data": data}, "source": "folder"}
        assert open_member(str(tmp_path / "other.ckpt"), first, "cpu").labels == expected
    with pytest.raises(InputError, match=r"knows Pus, .* knows BLOB: they have no label in common"):
        opened(tmp_path / "other.ckpt", own)


def test_a_checkpoint_that_lies_alone_has_no_calibration(trained_run, own, tmp_path):
    place = tmp_path / "alone.ckpt"
    place.write_bytes((trained_run / "checkpoints/best.ckpt").read_bytes())
    with pytest.raises(InputError, match="is not calibrated, and an ensemble is the mean"):
        part_of(opened(place, own), ["BLOB"])
