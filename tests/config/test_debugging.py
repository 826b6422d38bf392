"""Switches for debugging: each works, or the refusal names what takes its place."""

import inspect

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from fluoroscope.config import CONF
from fluoroscope.config.run_checks import unknown_key
from fluoroscope.config.substitutes import INSTEAD
from fluoroscope.data.samplers import TrainSampler
from fluoroscope.model.classifier import Classifier
from fluoroscope.run import run_folder
from fluoroscope.train import train
from tests.config.test_config import changed, refusal
from tests.support.films import tiny_config

OURS = {"self"}  # parameters of Lightning's Trainer that are no key


def test_every_key_of_lightning_exists_or_has_a_substitute():
    keys = {*OmegaConf.load(CONF / "trainer/auto.yaml")}
    for name in {*inspect.signature(pl.Trainer.__init__).parameters} - OURS:
        assert (name in keys) != (f"trainer.{name}" in INSTEAD), name


@pytest.mark.parametrize("key", sorted(INSTEAD))
def test_a_substitute_is_told_by_name(key):
    assert str(unknown_key(key, {})) == f"there is no key {key}; {INSTEAD[key]}"


def test_a_substitute_names_keys_that_exist():
    every = {*OmegaConf.load(CONF / "trainer/auto.yaml")}
    named = [word.split("=")[0] for advice in INSTEAD.values() for word in advice.split()]
    trainer = {word.strip(",;").removeprefix("trainer.") for word in named if "trainer." in word}
    assert trainer <= every


@pytest.mark.parametrize(("given", "count"), [("true", 1), ("3", 3)])
def test_a_fast_run_is_one_epoch_of_few_batches(given, count):
    cfg = changed(f"trainer.fast_dev_run={given}", "trainer.max_epochs=9", "logger.mode=online")
    limits = [cfg.trainer[f"limit_{split}_batches"] for split in ("train", "val", "test")]
    assert limits == [count] * 3
    assert (cfg.trainer.max_epochs, cfg.logger.mode, cfg.trainer.fast_dev_run) == (1, "off", False)


def test_without_these_keys_nothing_changes():
    cfg = changed("trainer.max_epochs=9")
    assert (cfg.trainer.max_epochs, cfg.trainer.limit_train_batches) == (9, None)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trainer.fast_dev_run=-1", "trainer.fast_dev_run must be true, false or a number of"),
        ("trainer.fast_dev_run=often", "a number of batches of at least 1; got 'often'"),
        ("trainer.overfit_batches=1.5", "trainer.overfit_batches must be a whole number above 0"),
        ("trainer.overfit_batches=-2", "a share in (0, 1], or null; got -2"),
        ("trainer.profiler=simpel", "trainer.profiler must be one of advanced, pytorch, simple;"),
        ("trainer.detect_anomaly=perhaps", "trainer.detect_anomaly must be true or false"),
    ],
)
def test_their_values_are_checked(override, told):
    assert told in refusal(override)


@pytest.mark.parametrize("weights", [None, torch.arange(1, 12).double().numpy()])
def test_the_same_draws_come_in_every_epoch(weights):
    same = TrainSampler(11, 3, seed=5, weights=weights, same=True)
    other = TrainSampler(11, 3, seed=5, weights=weights)
    draws, changing = [], []
    for epoch in (0, 1, 4):
        same.set_epoch(epoch)
        other.set_epoch(epoch)
        draws.append(list(same))
        changing.append(list(other))
    assert draws[0] == draws[1] == draws[2] == changing[0]
    assert changing[0] != changing[1]
    same.start_at(4, 2)  # a resumed run continues within the epoch
    assert list(same) == draws[0][6:]


def test_overfitting_repeats_batches_with_their_augmentation(films, tmp_path, monkeypatch):
    seen = []
    step = Classifier.training_step

    def watched(self, batch, *rest):
        seen.append((batch["index"].tolist(), float(batch["image"].double().std())))
        return step(self, batch, *rest)

    monkeypatch.setattr(Classifier, "training_step", watched)
    keys = ["trainer.overfit_batches=2", "trainer.max_epochs=3", "optimizer.warmup_frac=0"]
    cfg = tiny_config(films, *keys, "trainer.profiler=simple", "data.sampler=balanced")
    result = train(cfg, tmp_path / "run", [])
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]
    assert seen[0] != seen[1]
    assert result["steps"] == 6
    profile = (tmp_path / "run/fit-profile.txt").read_text()
    assert "run_training_batch" in profile
    stored = run_folder.checkpoint(tmp_path / "run", "last")
    assert torch.load(stored, weights_only=True)["config"]["trainer"]["overfit_batches"] == 2
