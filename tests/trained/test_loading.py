import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from fluoroscope.errors import InputError
from fluoroscope.files.images import fit_square, read_image
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.loading import fingerprint_of, open_trained


def test_the_model_gives_the_predictions_of_its_run(trained_run, films):
    trained = open_trained(trained_run)
    table = pd.read_csv(trained_run / "predictions/test.csv")
    paths = sorted(str(path) for path in films.rglob("*.png"))
    images = [fit_square(read_image(path), trained.image_px) for path in paths]
    batch = torch.from_numpy(np.stack(images)).reshape(-1, 1, trained.image_px, trained.image_px)
    parts = list(predict_batches(trained, batch.split(8)))
    logits = torch.cat([logits for logits, _ in parts])
    ours = logits.sigmoid().numpy()[:, 0]
    stored = table[f"{trained.labels[0]}_probability"].to_numpy()
    for value in stored:
        assert np.abs(ours - value).min() < 1e-5
    assert parts[0][1].shape == (8, trained.network.backbone.num_features)


def test_a_folder_and_its_best_checkpoint_are_the_same(trained_run):
    folder, file = open_trained(trained_run), open_trained(trained_run / "checkpoints/best.ckpt")
    assert folder.fingerprint == file.fingerprint
    assert folder.folder == file.folder == trained_run


def test_a_checkpoint_that_lies_alone_has_no_folder(trained_run, tmp_path):
    shutil.copy(trained_run / "checkpoints/best.ckpt", tmp_path / "model.ckpt")
    alone = open_trained(tmp_path / "model.ckpt")
    assert alone.folder is None
    assert alone.fingerprint == open_trained(trained_run).fingerprint


def test_the_folder_of_an_unfinished_run_is_refused_but_not_its_checkpoint(trained_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / "result.json").unlink()
    best = folder / "checkpoints/best.ckpt"
    with pytest.raises(InputError, match=rf"has not finished .* give {best} to use it as it is"):
        open_trained(folder)
    assert open_trained(best).folder == folder


def test_any_other_weight_has_another_fingerprint():
    weights = {"a": torch.zeros(2), "b": torch.ones(1, dtype=torch.int64)}
    first = fingerprint_of(weights)
    assert fingerprint_of(dict(reversed(weights.items()))) == first
    assert fingerprint_of(weights | {"a": torch.tensor([0.0, 1e-30])}) != first
    assert fingerprint_of(weights | {"a": torch.zeros(1, 2)}) != first


@pytest.mark.parametrize("what", ["empty", "missing", "text"])
def test_what_is_no_model_is_one_sentence(what, tmp_path):
    place = tmp_path / what
    if what == "empty":
        place.mkdir()
    if what == "text":
        place.write_text("no checkpoint")
    with pytest.raises(InputError):
        open_trained(place)


def test_a_gpu_that_is_not_there_is_refused(trained_run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="accelerator=cpu"):
        open_trained(trained_run, "gpu")
    with pytest.raises(InputError, match="auto, cpu or gpu"):
        open_trained(trained_run, "tpu")
