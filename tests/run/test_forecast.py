"""What a run says about its own length."""

import math

import pytest
import torch

from fluoroscope import build
from fluoroscope.errors import InputError
from fluoroscope.run import progress
from fluoroscope.run.device import settle_device
from fluoroscope.run.progress import forecast
from fluoroscope.train import train
from tests.support.films import TINY, config, tiny_config

CACHED = "backbone.frozen=true data.augment=[] data.features=cached"


def test_a_long_run_on_a_cpu_names_the_keys_that_shorten_it():
    cfg = config("backbone=b4", "trainer.max_epochs=15")
    line = forecast(cfg, 60.0, train_batches=100, val_batches=30, on_cpu=True)
    # A validation batch costs a third: 100 + 10 minutes, fifteen times.
    assert line == (
        "about 110 min per epoch, 28 h for 15 epochs on this CPU; backbone=lite0 or "
        f"{CACHED} takes a small part of that"
    )
    times = "about 110 min per epoch, 28 h for 15 epochs"
    assert forecast(cfg, 60.0, 100, 30, on_cpu=False) == times


def test_a_frozen_backbone_validates_as_slowly_as_it_trains():
    cfg = config("backbone=lite0", "backbone.frozen=true", "trainer.max_epochs=2")
    assert forecast(cfg, 6.0, 90, 10, on_cpu=False) == "about 10 min per epoch, 20 min for 2 epochs"


def test_keys_that_are_set_are_not_advised():
    keys = ["backbone.frozen=true", "data.augment=[]", "data.features=cached"]
    line = forecast(config("backbone=lite0", *keys), 600.0, 100, 1, on_cpu=True)
    assert line.endswith("15 epochs")


@pytest.mark.parametrize("batch_s", [0.01, math.nan])
def test_a_short_run_is_not_forecast(batch_s):
    assert forecast(config("backbone=lite0"), batch_s, 100, 10, on_cpu=True) is None


def test_a_run_prints_its_forecast_once_after_ten_batches(films, tmp_path, monkeypatch, capsys):
    asked = []

    def told(cfg, batch_s, train_batches, val_batches, on_cpu):
        asked.append((train_batches, val_batches, on_cpu))
        return "about a while"

    monkeypatch.setattr(progress, "forecast", told)
    train(tiny_config(films), tmp_path / "run", [])
    assert capsys.readouterr().out.count("about a while\n") == 1
    assert asked == [(10, 3, True)]


def test_on_a_slow_cpu_the_first_batch_is_enough(films, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SLOW_S", 0.0)
    monkeypatch.setattr(progress, "forecast", lambda cfg, batch_s, *rest, **more: "a while")
    train(tiny_config(films), tmp_path / "run", [])
    out = capsys.readouterr().out
    assert out.count("a while\n") == 1


@pytest.mark.parametrize(
    ("accelerator", "there", "bf16", "precision"),
    [
        ("auto", True, True, "bf16-mixed"),
        ("gpu", True, True, "bf16-mixed"),
        ("auto", True, False, "32-true"),
        ("auto", False, False, "32-true"),
        ("cpu", True, True, "32-true"),
    ],
)
def test_auto_precision_is_that_of_the_device(monkeypatch, accelerator, there, bf16, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    cfg = config(f"trainer.accelerator={accelerator}")
    settle_device(cfg)
    assert cfg.trainer.precision == precision
    cfg.trainer.precision = "16-mixed"
    settle_device(cfg)
    assert cfg.trainer.precision == "16-mixed"


def test_too_little_memory_of_a_gpu_is_one_sentence(films, tmp_path, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("fluoroscope.model.classifier.Classifier.training_step", full)
    with pytest.raises(InputError) as stopped:
        train(tiny_config(films), tmp_path / "run", [])
    assert str(stopped.value) == (
        "the GPU's memory is too small for data.batch_size=8 at 48 px; set data.batch_size=4 "
        "trainer.accumulate_grad_batches=2, or backbone.grad_checkpointing=true"
    )


def test_the_size_that_stays_is_said(films, capsys):
    lite0 = ["backbone=lite0", "backbone.name=tf_efficientnet_lite0", "backbone.weights=package"]
    cfg = config(*TINY, *lite0, f"data.root={films}")
    build.build_backbone(cfg)
    said = "tf_efficientnet_lite0 is made for images of 224 px; data.image_px=48 stays\n"
    assert capsys.readouterr().out == said
    cfg.data.image_px = 224
    build.build_backbone(cfg)
    assert capsys.readouterr().out == ""
