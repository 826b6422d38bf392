"""`run.estimate=true` says what the run then takes, and leaves nothing."""

import re
import time

import pytest

from fluoroscope import estimate
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone
from fluoroscope.train import train
from tests.support.films import tiny_config

SLOW_S = 0.2  # of a forward pass, so that the load of the machine decides nothing


@pytest.fixture
def slow(monkeypatch):
    forward = Backbone.forward

    def slowly(self, image):
        time.sleep(SLOW_S)
        return forward(self, image)

    monkeypatch.setattr(Backbone, "forward", slowly)


def test_what_a_run_will_take_is_printed_and_nothing_is_left(films, tmp_path, capsys):
    estimate.estimate(tiny_config(films, f"run.dir={tmp_path}/run"))
    out = capsys.readouterr().out
    assert re.search(r"^test_efficientnet, 48 px, batch 8, 32-true, on the CPU$", out, re.M)
    assert re.search(r"^batch +\d+ ms, \d+ images/s; the network alone \d+ ms: ", out, re.M)
    assert re.search(r"^epoch +\d+ s, \d+ s of it validation$", out, re.M)
    assert re.search(r"^run +\d+ s for 2 epochs$", out, re.M)
    assert "not measured on a CPU" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.whole
def test_the_forecast_is_within_a_fifth_of_the_run(films, tmp_path, slow):
    seconds = estimate.estimate(tiny_config(films, "trainer.max_epochs=4"))
    started = time.perf_counter()
    train(tiny_config(films, "trainer.max_epochs=4"), tmp_path / "run", [])
    assert seconds == pytest.approx(time.perf_counter() - started, rel=0.2)


def test_a_loader_that_limits_is_named(films, monkeypatch, capsys):
    from fluoroscope.data.datamodule import XrayDataset

    read = XrayDataset.__getitem__

    def slowly(self, draw):
        time.sleep(0.01)
        return read(self, draw)

    monkeypatch.setattr(XrayDataset, "__getitem__", slowly)
    estimate.estimate(tiny_config(films))
    assert "the loader limits" in capsys.readouterr().out


@pytest.mark.parametrize("keys", [["trainer=ddp", "trainer.accelerator=cpu"], []])
def test_several_processes_or_runs_are_refused(films, keys):
    with pytest.raises(InputError, match="one run in one process"):
        estimate.estimate(tiny_config(films, *keys), several=not keys)


def test_cached_features_are_refused(films):
    keys = ["backbone.frozen=true", "data.augment=[]", "data.features=cached"]
    with pytest.raises(InputError, match=r"measures training on images; set data.features=live"):
        estimate.estimate(tiny_config(films, *keys))
