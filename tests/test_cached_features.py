"""Training on features that are computed once, against training behind the frozen backbone."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from fluoroscope.run.features import extract
from fluoroscope.train import train
from tests.support.films import tiny_config
from tests.test_evaluate import evaluated

FROZEN = ["backbone.frozen=true", "data.augment=[]"]
CACHED = [*FROZEN, "data.features=cached"]


def trained(films, folder, *keys):
    return train(tiny_config(films, *keys, f"run.dir={folder}"), folder, [])


def head_of(folder, name="best"):
    state = torch.load(run_folder.checkpoint(folder, name), weights_only=False)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("head.")}


@pytest.fixture(scope="module")
def cached(films, tmp_path_factory):
    """The folder of a run on cached features."""
    folder = tmp_path_factory.mktemp("cached") / "run"
    trained(films, folder, *CACHED)
    return folder


@pytest.mark.parametrize(
    "keys", [pytest.param([], marks=pytest.mark.whole), ["data.sampler=balanced"]], ids=str
)
def test_a_head_on_cached_features_is_the_head_behind_the_backbone(films, tmp_path, keys):
    live = trained(films, tmp_path / "live", *FROZEN, *keys)
    cached = trained(films, tmp_path / "cached", *CACHED, *keys)
    for key, value in head_of(tmp_path / "live").items():
        # Convolutions round differently in batches of other images.
        torch.testing.assert_close(head_of(tmp_path / "cached")[key], value, rtol=1e-3, atol=1e-5)
    for key in ("val/dead_frac", "train/blackout_frac", "train/zero_frac"):
        assert cached["units"][key] == pytest.approx(live["units"][key], abs=2e-3), key
    assert set(cached["units"]) == set(live["units"])
    assert cached["test"]["auroc"] == pytest.approx(live["test"]["auroc"], abs=0.02)


def test_as_many_views_as_epochs_are_the_augmentation_of_a_run(films, tmp_path):
    keys = ["backbone.frozen=true", "data.num_workers=0"]
    trained(films, tmp_path / "live", *keys)
    trained(films, tmp_path / "cached", *keys, "data.features=cached", "data.feature_views=2")
    for key, value in head_of(tmp_path / "live", "last").items():
        other = head_of(tmp_path / "cached", "last")[key]
        torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-4)


def test_the_features_of_a_second_run_come_from_the_cache(cached, films, tmp_path, monkeypatch):
    computed = []

    def counted(*args, rows=None, **kwargs):
        computed.append(rows)
        return extract(*args, rows=rows, **kwargs)

    monkeypatch.setattr("fluoroscope.run.features.extract", counted)
    trained(films, tmp_path / "again", *CACHED, "head.activation=gelu")
    assert [len(rows) for rows in computed] == [8]


def test_its_checkpoint_scores_images(cached, films, tmp_path):
    evaluated(tmp_path / "scored", f"checkpoint={cached}/checkpoints/best.ckpt", "split=test")
    own, again = (
        pd.read_csv(folder / "predictions/test.csv")["BLOB_probability"]
        for folder in (cached, tmp_path / "scored")
    )
    np.testing.assert_allclose(again, own, atol=1e-4)


def test_it_resumes_on_its_features(cached, films, tmp_path):
    folder = shutil.copytree(cached, tmp_path / "run")
    cfg = tiny_config(films, *CACHED, "trainer.max_epochs=3")
    cfg.run.resume = str(folder)
    assert train(cfg, folder, [])["epochs"] == 3


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (["backbone.frozen=false"], "data.features=cached needs backbone.frozen=true"),
        (["data.augment=[{name: RandomGamma}]"], "set data.augment=\\[\\], or data.feature_views="),
        (["trainer.devices=2"], "data.features=cached trains in one process"),
        (["diagnostics.layers=['backbone.*']"], "leaves only the head to watch"),
        (["data.features=live", "data.feature_views=2"], "needs data.features=cached"),
        (["data.features=once"], "data.features must be one of cached, live"),
    ],
)
def test_settings_without_fixed_features_are_refused(films, keys, sentence):
    with pytest.raises(InputError, match=sentence):
        tiny_config(films, *CACHED, *keys)
