"""Validation within a fit: the backbone in inference mode, no number changed, no tensor caught."""

from pathlib import Path

import pytest
import torch

from fluoroscope import build
from fluoroscope.model.classifier import Classifier
from tests.support.films import tiny_config
from tests.support.fits import bare_trainer


def plain_step(self, batch, batch_idx):
    """As Lightning's loop calls it: under `no_grad`, all in one."""
    self.gathered.update(batch["index"], self(batch["image"]), batch["target"])


def tensors(value):
    """All tensors in nested containers and objects of this project and its metrics."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
    elif type(value).__module__.startswith("fluoroscope") and hasattr(value, "__dict__"):
        yield from tensors(vars(value))


class Fit:
    """One fit and all that it leaves behind."""

    def __init__(self, films, *overrides):
        cfg = tiny_config(films, "trainer.max_epochs=2", *overrides)
        data = build.build_data(cfg, build.build_studies(cfg))
        self.model = build.build_classifier(cfg, data)
        self.watchers = build.build_watchers(cfg, Path())[:2]  # the monitor, the layers
        self.modes = []
        network = self.model.backbone.network
        forward = network.forward

        def noting(x):
            self.modes.append((network.training, torch.is_inference_mode_enabled()))
            return forward(x)

        network.forward = noting
        torch.manual_seed(1)
        bare_trainer(cfg, self.watchers).fit(self.model, datamodule=data)

    def history(self):
        return self.watchers[0].history.last


@pytest.mark.parametrize(
    "precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.whole)]
)
def test_inference_mode_changes_no_bit_and_leaves_nothing_behind(films, monkeypatch, precision):
    assert_inference_changes_nothing(films, monkeypatch, f"trainer.precision={precision}")


def assert_inference_changes_nothing(films, monkeypatch, *overrides):
    mine = Fit(films, *overrides)
    monkeypatch.setattr(Classifier, "validation_step", plain_step)
    plain = Fit(films, *overrides)

    assert mine.modes.count((False, True)) == plain.modes.count((False, False)) > 4
    assert {inference for training, inference in mine.modes if training} == {False}
    assert torch.equal(mine.model.predictions["val"].logits, plain.model.predictions["val"].logits)
    assert mine.model.scores == plain.model.scores
    assert mine.history() == pytest.approx(plain.history(), rel=0, nan_ok=True)
    assert all(map(torch.equal, mine.model.parameters(), plain.model.parameters()))

    kept = [*tensors(mine.watchers), *mine.model.state_dict().values()]
    kept += [*tensors(mine.model.predictions), *tensors(vars(mine.model.gathered))]
    assert len(kept) > 50
    assert not any(tensor.is_inference() for tensor in kept)


def test_a_backbone_that_is_watched_keeps_ordinary_tensors(films):
    watched = Fit(films, "diagnostics.layers=[head.activation,'backbone.*']")
    assert not any(inference for _, inference in watched.modes)
    kept = list(tensors(watched.watchers))
    assert len(kept) > 50
    assert not any(tensor.is_inference() for tensor in kept)
