import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

from fluoroscope.config import CONF
from fluoroscope.config import export as keys
from fluoroscope.config.export import Job, check_export
from fluoroscope.errors import InputError
from fluoroscope.export import export as story
from fluoroscope.export import speed
from fluoroscope.export.calibrated_network import CalibratedNetwork
from fluoroscope.export.export import export
from fluoroscope.export.onnx_file import open_file
from fluoroscope.export.real_images import LEAST, MOST, given_images
from fluoroscope.files.images import fit_square, read_image
from fluoroscope.trained.calibration import save_calibration
from fluoroscope.trained.loading import open_trained
from fluoroscope.trained.stored_calibration import load_calibration

CONTRACT = {
    *("labels", "operating_points", "temperature", "image_px", "intensity", "fingerprints"),
    "version",
}


def job(checkpoint, out, kind="torch", images=(), root=None):
    return Job(Path(checkpoint), kind, Path(out), 18, list(images), root)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.0)


@pytest.fixture
def untraced(monkeypatch):
    """The network itself stands for the file, which takes seconds to write."""

    def write(job, network, about, file):
        file.write_bytes(b"written")
        return story.runner(network)

    monkeypatch.setattr(story, "trace", lambda network, image_px: network)
    monkeypatch.setattr(story, "_write", write)


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """Both files of a run, and what their JSON says."""
    folder = tmp_path_factory.mktemp("exported")
    files = {kind: folder / name for kind, name in keys.FILES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "SECONDS", 0.0)
        return {kind: (file, export(job(trained_run, file, kind))) for kind, file in files.items()}


def facts_in(file):
    if file.suffix == ".onnx":
        import onnxruntime

        stored = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    else:
        stored = dict.fromkeys(CONTRACT, "")
        torch.export.load(file, extra_files=stored)
    return {key: json.loads(value) for key, value in stored.items()}


@pytest.mark.parametrize("kind", keys.FILES)
def test_the_file_and_its_json_say_the_same(exported, trained_run, kind):
    file, facts = exported[kind]
    written = json.loads(file.with_name(f"{file.name}.json").read_text())
    stored = facts_in(file)
    assert set(stored) >= CONTRACT
    assert stored == {key: written[key] for key in stored}
    assert written == json.loads(json.dumps(facts))
    trained = open_trained(trained_run)
    calibration = load_calibration(trained)
    (label,) = trained.labels
    assert stored["labels"] == [label]
    assert stored["image_px"] == 48
    assert stored["fingerprints"]["weights"] == trained.fingerprint
    assert stored["temperature"] == {label: calibration.labels[label].temperature}
    assert stored["operating_points"] == {label: calibration.labels[label].points}
    assert written["agreement"]["images"] == MOST
    assert written["agreement"]["largest_difference"] < 1e-4
    assert [row["batch"] for row in written["speed"]["batches"]] == [1, 16]
    assert all(row["exported"] > 0 for row in written["speed"]["batches"])


def test_the_file_gives_the_calibrated_validation_predictions(exported, trained_run, films):
    """Of the run's own CSV, which the training wrote by another route."""
    file, facts = exported["onnx"]
    table = pd.read_csv(trained_run / "predictions/val.csv")
    (label,) = facts["labels"]
    raw = table[f"{label}_probability"].to_numpy()
    wanted = 1 / (1 + np.exp(-np.log(raw / (1 - raw)) / facts["temperature"][label]))
    paths = sorted(films.rglob("*.png"))
    images = np.stack([fit_square(read_image(path), 48) for path in paths])[:, None]
    found = open_file(file)(images)[:, 0]
    assert np.ptp(wanted) > 1e-4
    assert max(np.abs(found - value).min() for value in wanted) < 2e-6


def test_nothing_but_the_two_files_is_left(exported):
    folder = exported["onnx"][0].parent
    names = {name for file in keys.FILES.values() for name in (file, f"{file}.json")}
    assert {path.name for path in folder.iterdir()} == names


CHANGES = {
    "scaled": lambda p: p * 0.999,
    "shifted": lambda p: p + 2e-4,
    "not a number": lambda p: p * float("nan"),
    "right for one batch size": lambda p: p * (1 if len(p) == 16 else 0.9),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("untraced")
def test_a_file_that_does_not_agree_is_not_kept(trained_run, tmp_path, monkeypatch, change):
    right = CalibratedNetwork.forward
    monkeypatch.setattr(
        CalibratedNetwork, "forward", lambda self, image: CHANGES[change](right(self, image))
    )
    (tmp_path / "model.pt2").write_text("before")
    with pytest.raises(InputError, match="not kept"):
        export(job(trained_run, tmp_path / "model.pt2"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.pt2": "before"}


@pytest.mark.whole
def test_a_wrong_file_is_not_kept_either(trained_run, tmp_path, monkeypatch):
    right = CalibratedNetwork.forward
    monkeypatch.setattr(CalibratedNetwork, "forward", lambda self, image: right(self, image) + 2e-4)
    with pytest.raises(InputError, match="not kept"):
        export(job(trained_run, tmp_path / "model.pt2"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copied(trained_run, tmp_path):
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def refused(tmp_path, match, *arguments, **more):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=match) as caught:
        export(job(arguments[0], out / "model.pt2", **more))
    assert list(out.iterdir()) == []
    return str(caught.value)


def test_a_model_without_calibration_is_refused(copied, tmp_path):
    shutil.rmtree(copied / "predictions")
    refused(tmp_path, r"no calibration.*scripts/evaluate.py", copied)


def test_a_calibration_of_other_weights_is_refused(copied, tmp_path):
    (copied / "calibration.json").write_text(
        json.dumps(
            {"version": 1, "labels": {}, "fingerprint": "0", "split_fingerprint": "0", "inputs": {}}
        )
    )
    refused(tmp_path, "other weights", copied)


@pytest.mark.usefixtures("untraced")
def test_images_that_were_moved_are_asked_for(copied, tmp_path, films):
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(re.sub(r"root: .*", "root: /nowhere/films", text))
    message = refused(tmp_path, "images=FOLDER", copied)
    assert "/nowhere/films" in message
    export(job(copied, tmp_path / "a.pt2", root=str(films)))
    export(job(copied, tmp_path / "b.pt2", images=[films]))
    assert (tmp_path / "a.pt2").exists()
    assert (tmp_path / "b.pt2").exists()


@pytest.mark.usefixtures("untraced")
def test_a_checkpoint_alone_is_exported_with_calibration_and_images(copied, tmp_path, films):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(copied / "checkpoints/best.ckpt", alone / "model.ckpt")
    refused(tmp_path, "no calibration", alone / "model.ckpt")
    trained = open_trained(copied)
    save_calibration(alone, load_calibration(trained))
    refused(tmp_path, r"data\.root.*images=FOLDER", alone / "model.ckpt")
    facts = export(job(alone / "model.ckpt", tmp_path / "model.pt2", images=[films]))
    assert facts["fingerprints"]["weights"] == trained.fingerprint


def test_images_of_another_collection_are_not_those_of_the_run(copied, tmp_path, films):
    other = shutil.copytree(films, tmp_path / "other")
    for path in list(other.rglob("p00*_0.png")):
        path.unlink()
    refused(tmp_path, "not those the checkpoint was trained with", copied, root=str(other))


def write_images(folder, count, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        cv2.imwrite(str(folder / f"{n}.png"), rng.integers(0, 255, (50, 40), np.uint8))
    return folder


def test_given_images_are_counted_by_their_content(tmp_path):
    folder = write_images(tmp_path / "a/deep", LEAST - 1)
    (folder / "table.csv").write_text("not an image")
    shutil.copy(folder / "0.png", folder / "copy.png")
    with pytest.raises(InputError, match=f"{LEAST - 1} different images"):
        given_images([tmp_path / "a"], 48)
    extra = write_images(tmp_path / "b", 1, seed=1) / "0.png"
    images = given_images([tmp_path / "a", extra], 48)
    assert (images.dtype, images.shape) == (np.uint8, (LEAST, 1, 48, 48))


def test_images_are_spread_over_the_folder(tmp_path):
    folder = write_images(tmp_path / "many", 3 * MOST)
    images = given_images([folder], 48)
    names = sorted(path.name for path in folder.iterdir())
    wanted = {fit_square(read_image(folder / n), 48).tobytes() for n in names[::3]}
    assert {image.tobytes() for image in images[:, 0]} == wanted


def checked(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_export(compose("export", [*overrides]))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["checkpoint={run}", "format=torch", "evaluation={tmp}"], "add card=true"),
        (
            ["checkpoint={run}", "format=torch", "card=true", "evaluation=no"],
            "there is no file no/evaluation.json",
        ),
        ([], "checkpoint is not set"),
        (["checkpoint=nowhere"], "there is no checkpoint nowhere"),
        (["checkpoint={tmp}"], "is not the folder of a trained run"),
        (["checkpoint={tmp}/text"], "is not a checkpoint"),
        (["checkpoint={run}", "format=onxx"], "format must be one of onnx, torch.*mean 'onnx'"),
        (["checkpoint={run}", "opset=99"], r"opset must be in \[18, 25\]; got 99"),
        (["checkpoint={run}", "opset=17"], r"opset must be in \[18, 25\]; got 17"),
        (["checkpoint={run}", "opset=new"], "opset must be a whole number"),
        (["checkpoint={run}", "out={tmp}"], "is a folder; add the name of a file"),
        (["checkpoint={run}", "out={tmp}/no/model.onnx"], "there is no folder"),
        (["checkpoint={run}", "out={tmp}/text/model.onnx"], "there is no folder"),
        (["checkpoint={run}", "images={tmp}/no"], "there is no file or folder"),
        (["checkpoint={run}", "images=/dev/zero"], "images: /dev/zero is a pipe or a device"),
        (["checkpoint={run}", "images=[]"], "images must be a folder"),
        (["checkpoint={run}", "images=3"], "images must be a folder"),
        (["checkpoint={run}", "data.root={tmp}/no"], "there is no"),
    ],
)
def test_bad_input_is_one_sentence(trained_run, tmp_path, overrides, told):
    (tmp_path / "text").write_text("no checkpoint")
    filled = [word.format(tmp=tmp_path, run=trained_run) for word in overrides]
    with pytest.raises(InputError, match=told) as caught:
        checked(*filled)
    assert "\n" not in str(caught.value)


def test_the_file_lies_in_the_run_folder_or_beside_the_checkpoint(trained_run):
    best = trained_run / "checkpoints/best.ckpt"
    assert checked(f"checkpoint={trained_run}").out == trained_run / "model.onnx"
    assert checked(f"checkpoint={best}", "format=torch").out == best.with_name("model.pt2")
    assert checked(f"checkpoint={best}", "out=x.onnx").out == Path("x.onnx")


def test_a_folder_that_cannot_be_written_is_refused_first(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(InputError, match="cannot be written"):
        checked(f"checkpoint={trained_run}", f"out={tmp_path}/model.onnx")


@pytest.mark.usefixtures("untraced")
def test_a_file_that_cannot_be_written_is_one_sentence(trained_run, films):
    with pytest.raises(InputError, match="cannot write /proc/model"):
        export(job(trained_run, "/proc/model.pt2", images=[films]))


def test_packages_that_are_not_installed_are_named(trained_run, monkeypatch):
    monkeypatch.setattr(keys, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"needs onnxscript; install fluoroscope\[export\]"):
        checked(f"checkpoint={trained_run}")
    assert checked(f"checkpoint={trained_run}", "format=torch").format == "torch"


@pytest.mark.usefixtures("untraced")
def test_the_card_lies_beside_the_file(trained_run, tmp_path):
    wanted = job(trained_run, tmp_path / "model.pt2")._replace(card=True)
    export(wanted)
    text = (tmp_path / "model_card.md").read_text()
    assert open_trained(trained_run, "cpu").fingerprint in text
    assert ", calibrated; thresholds Youden" in text


def test_a_card_that_its_authors_may_have_completed_is_not_replaced(trained_run, tmp_path):
    (tmp_path / "model_card.md").write_text("completed")
    words = [f"checkpoint={trained_run}", "format=torch", f"out={tmp_path}/model.pt2"]
    with pytest.raises(InputError, match=r"/model_card\.md exists, .* remove card=true"):
        checked(*words, "card=true")
    assert checked(*words).card is False


@pytest.mark.usefixtures("untraced")
def test_a_card_of_another_evaluation_is_refused_before_anything_is_written(trained_run, tmp_path):
    shown, out = tmp_path / "shown", tmp_path / "out"
    shown.mkdir()
    out.mkdir()
    (shown / "evaluation.json").write_text('{"version": 1, "fingerprint": "0"}')
    wanted = job(trained_run, out / "model.pt2")._replace(card=True, evaluation=shown)
    with pytest.raises(InputError, match="is of other weights"):
        export(wanted)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    "out", ["checkpoints/best.ckpt", "config.yaml", "result", "predictions/val.csv"]
)
def test_no_other_file_is_replaced(copied, out):
    """`out=RUN/result` would write its JSON over the run's `result.json`."""
    with pytest.raises(InputError, match="is not an earlier export"):
        checked(f"checkpoint={copied}", "format=torch", f"out={copied}/{out}")


@pytest.mark.usefixtures("untraced")
def test_an_earlier_export_is_replaced(trained_run, tmp_path):
    out = tmp_path / "model.pt2"
    for _ in range(2):
        export(checked(f"checkpoint={trained_run}", "format=torch", f"out={out}"))
    (tmp_path / "model.pt2.json").write_text("[]")
    with pytest.raises(InputError, match="is not an earlier export"):
        checked(f"checkpoint={trained_run}", "format=torch", f"out={out}")


@pytest.mark.usefixtures("untraced")
def test_a_label_that_cannot_be_calibrated_is_named(copied, tmp_path, capsys):
    table = pd.read_csv(copied / "predictions/val.csv")
    (label,) = open_trained(copied).labels
    table[label] = 0
    table.to_csv(copied / "predictions/val.csv", index=False)
    facts = export(job(copied, tmp_path / "model.pt2"))
    assert facts["uncalibrated"] == [label]
    assert facts["temperature"] == {label: 1.0}
    assert set(facts["operating_points"][label].values()) == {None}
    assert f"note: {label} lacks a class on validation" in capsys.readouterr().out
