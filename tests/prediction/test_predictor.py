"""The model from Python: files, bytes and arrays, anywhere on the machine."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from scipy.special import expit, logit

import fluoroscope
from fluoroscope import build
from fluoroscope.errors import InputError
from fluoroscope.files.images import read_image
from fluoroscope.trained.loading import open_trained
from tests.support.forking import Forked, run_script


@pytest.fixture(scope="module")
def predictor(ready):
    return fluoroscope.load(ready)


@pytest.fixture(scope="module")
def stored(ready):
    """The label, its entry in `calibration.json`, and the run's own predictions with paths."""
    ((label, entry),) = json.loads((ready / "calibration.json").read_text())["labels"].items()
    table = pd.read_csv(ready / "predictions/test.csv")
    paths = build.build_studies(open_trained(ready, "cpu").config).table["path"]
    return label, entry, table.assign(path=paths[table["row"]].to_numpy())


def assert_alike(ours, theirs):
    """Equal up to the rounding of a batch of another size."""
    assert ours.probability == pytest.approx(theirs.probability, abs=1e-6)
    assert ours[1:] == theirs[1:]


def test_probabilities_are_those_of_the_run_calibrated(predictor, stored):
    label, entry, table = stored
    found = predictor.predict(table["path"].tolist())
    ours = [each.probability[label] for each in found]
    expected = expit(logit(table[f"{label}_probability"]) / entry["temperature"])
    assert ours == pytest.approx(expected.tolist(), abs=1e-6)
    assert len(set(ours)) > 10


@pytest.mark.parametrize("point", ["youden", "sensitivity_90", "specificity_95"])
def test_decisions_are_those_of_the_operating_point(ready, stored, point):
    label, entry, table = stored
    found = fluoroscope.load(str(ready), point).predict(table["path"].tolist())
    threshold = entry["points"][point]
    assert [each.decision[label] for each in found] == [
        each.probability[label] >= threshold for each in found
    ]
    raw = table[f"{label}_probability"] >= entry["raw_points"][point]
    assert [each.decision[label] for each in found] == raw.tolist()


def test_a_film_is_the_same_as_file_bytes_array_or_image(predictor, films):
    path = sorted(films.rglob("*.png"))[0]
    pixels = read_image(path)
    one = predictor.predict(path)
    others = [str(path), path.read_bytes(), pixels, np.dstack([pixels] * 3), pixels[None]]
    others += [torch.from_numpy(pixels), Image.open(path)]
    for other in [predictor.predict(film) for film in others]:
        assert other == one
    for each in predictor.predict([path, pixels]):
        assert_alike(each, one)
    assert predictor.predict([]) == []


def test_a_dicom_file_is_read_as_in_training(predictor):
    path = get_testdata_file("RG1_UNCR.dcm")
    assert predictor.predict(path) == predictor.predict(read_image(path))


def test_colours_are_flagged_in_files_and_arrays(predictor, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "c.png"), colours[..., ::-1])
    assert "colour" in predictor.predict(tmp_path / "c.png").flags
    assert "colour" in predictor.predict(colours).flags
    assert "colour" not in predictor.predict(colours[..., 0]).flags


def test_a_film_that_cannot_be_read_is_an_error_or_in_a_list_an_entry(predictor, films, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"cannot read image .*bad\.png: the file is truncated"):
        predictor.predict(tmp_path / "bad.png")
    with pytest.raises(InputError, match="cannot read image: its shape is"):
        predictor.predict(np.zeros((2, 3, 4, 5)))
    with pytest.raises(InputError, match="cannot read image: it holds object values"):
        predictor.predict(None)
    good = next(films.rglob("*.png"))
    bad, fine = predictor.predict([tmp_path / "bad.png", good])
    assert bad.error == "the file is truncated"
    assert all(np.isnan(value) for value in bad.probability.values())
    assert set(bad.decision.values()) == {None}
    assert bad.flags == ()
    assert_alike(fine, predictor.predict(good))


def test_without_calibration_scores_and_thresholds_are_those_of_training(ready, stored, tmp_path):
    label, _, table = stored
    shutil.copy(ready / "checkpoints/best.ckpt", tmp_path / "model.ckpt")
    bare = fluoroscope.load(tmp_path / "model.ckpt")
    assert bare.calibration is None
    found = bare.predict(table["path"].tolist())
    raw = table[f"{label}_probability"].tolist()
    assert [each.probability[label] for each in found] == pytest.approx(raw, abs=1e-6)
    threshold = float(open_trained(ready).checkpoint["thresholds"][0])
    decided = [value >= threshold for value in raw]
    assert [each.decision[label] for each in found] == decided
    with pytest.raises(InputError, match="point=sensitivity_90 needs a calibration"):
        fluoroscope.load(tmp_path / "model.ckpt", "sensitivity_90")


def test_an_unknown_point_is_refused_and_damaged_statistics_too(ready, tmp_path):
    with pytest.raises(InputError, match="did you mean 'sensitivity_90'"):
        fluoroscope.load(ready, "sensitivty_90")
    shutil.copytree(ready, tmp_path / "run")
    file = tmp_path / "run/calibration.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"inputs": {"version": 1}}))
    with pytest.raises(InputError, match="input statistics"):
        fluoroscope.load(tmp_path / "run")


def test_a_point_that_validation_could_not_give_decides_nothing(ready, films, tmp_path):
    shutil.copytree(ready, tmp_path / "run")
    file = tmp_path / "run/calibration.json"
    values = json.loads(file.read_text())
    for entry in values["labels"].values():
        entry["points"]["youden"] = None
    file.write_text(json.dumps(values))
    found = fluoroscope.load(tmp_path / "run").predict(next(films.rglob("*.png")))
    assert set(found.decision.values()) == {None}
    assert not found.error


LINES = """
import sys
import fluoroscope
print(fluoroscope.load(sys.argv[1]).predict(sys.argv[2]).probability)
"""


def test_three_lines_work_in_any_folder(ready, films, predictor, tmp_path):
    film = next(films.rglob("*.png"))
    (tmp_path / "three.py").write_text(LINES)
    call = partial(run_script, tmp_path / "three.py", [str(ready), str(film)])
    out, err = Forked(call, tmp_path, dict(os.environ)).communicate(timeout=100)
    ((label, value),) = predictor.predict(film).probability.items()
    assert out == f"{{'{label}': {value}}}\n", err
    assert [path.name for path in tmp_path.iterdir()] == ["three.py"]


def test_the_import_alone_is_light(tmp_path):
    code = "import fluoroscope, sys; print('torch' in sys.modules, fluoroscope.load.__name__)"
    env = os.environ | {"PYTHONPATH": str(Path(fluoroscope.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False load\n", done.stderr
