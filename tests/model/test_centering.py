import random
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from fluoroscope import build
from fluoroscope.model.centering import CenteredBias
from tests.support.films import tiny_config

IMAGES = 30  # three batches of eight
KEYS = ["head.bias_init=centered", "trainer.max_epochs=1"]


class Look(pl.Callback):
    """The whole state at the moment when a fit starts, and the weights after it."""

    def on_fit_start(self, trainer, pl_module):
        self.bias = pl_module.head.dense.bias.detach().clone()
        self.rest = {
            name: value.clone()
            for name, value in pl_module.state_dict().items()
            if name != "head.dense.bias"
        }
        self.modes = [module.training for module in pl_module.modules()]
        numpy_state = np.random.get_state()[1].tolist()
        self.random = (torch.get_rng_state().tolist(), numpy_state, random.getstate())


def built(films, *overrides):
    cfg = tiny_config(films, *KEYS, *overrides)
    data = build.build_data(cfg, build.build_studies(cfg))
    return build.build_classifier(cfg, data), data


def fit(model, data, *callbacks, ckpt_path=None, folder=None, max_epochs=1):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        limit_train_batches=3,
        callbacks=[*callbacks],
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    pl.seed_everything(1, verbose=False)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=False)
    return trainer


class FirstFeatures(pl.Callback):
    """The independent route: the features that the training itself gives to the head."""

    def on_fit_start(self, trainer, pl_module):
        self.features = []
        pl_module.head.register_forward_pre_hook(self.keep)

    def keep(self, head, inputs):
        if head.training:
            self.features.append(inputs[0].detach().clone())


@pytest.fixture(scope="module")
def centred(films):
    """First weights, the state before and after the callback, the features of the training."""
    model, data = built(films)
    model.descent = model.descent._replace(lr=1e-12, backbone_lr=1e-12)
    model.head.dense.bias.data.fill_(0.5)
    model.backbone.network.bn1.eval()  # a mode of its own
    weight = model.head.dense.weight.detach().clone()
    before, after, first = Look(), Look(), FirstFeatures()
    fit(model, data, before, CenteredBias(IMAGES), after, first)
    return weight, before, after, torch.cat(first.features)


def test_the_mean_pre_activation_of_the_first_batches_is_zero(centred):
    weight, _, after, features = centred
    assert features.shape[0] == 24
    z = features @ weight.T
    assert z.mean(0).abs().max() > 0.1  # centring has something to do
    torch.testing.assert_close((z + after.bias).mean(0), torch.zeros(31), rtol=0, atol=1e-5)


def test_nothing_else_changes(centred):
    _, before, after, _ = centred
    assert before.bias.unique().tolist() == [0.5]
    assert before.modes == after.modes
    assert len(set(before.modes)) == 2
    assert before.rest.keys() == after.rest.keys()
    assert all(torch.equal(before.rest[name], after.rest[name]) for name in before.rest)
    assert before.random == after.random


def test_a_resumed_fit_keeps_its_own_bias(films, tmp_path):
    model, data = built(films)
    fit(model, data, CenteredBias()).save_checkpoint(tmp_path / "last.ckpt")
    expected = model.head.dense.bias.detach().clone()
    again, look = built(films)[0], Look()
    fit(again, data, CenteredBias(), look, ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert torch.equal(look.bias, expected)
    assert not torch.equal(again.head.dense.bias, expected)  # it was trained further


def mean_features(model, data, rank=0, processes=1, images=IMAGES):
    """What a process measures: its sums are left as they are instead of added up."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    place = {"global_rank": rank, "world_size": processes, "num_devices": processes}
    data.trainer = SimpleNamespace(**place, strategy=strategy)
    sums = []
    trainer = SimpleNamespace(
        datamodule=data,
        world_size=processes,
        precision_plugin=SimpleNamespace(forward_context=torch.inference_mode),
        strategy=SimpleNamespace(reduce=lambda t, reduce_op: sums.append((t, reduce_op)) or t),
    )
    mean = CenteredBias(images)._mean_features(trainer, model)
    return mean, sums


def test_processes_share_the_images(films):
    """Gloo adds the sums up in `diagnostics/test_revive.py`; here it is done by hand."""
    model, data = built(films, "backbone.frozen=true", "data.batch_size=12")
    whole, _ = mean_features(model, data)
    data.batch_size = 4
    parts = [mean_features(model, data, rank, 3)[1] for rank in range(3)]
    assert {op for [(_, op)] in parts} == {"sum"}
    total = sum(t for [(t, _)] in parts)
    assert total[-1] == 24
    torch.testing.assert_close(total[:-1] / total[-1], whole, rtol=1e-5, atol=1e-9)


def test_there_is_at_least_one_batch(films):
    model, data = built(films)
    _, [(sums, _)] = mean_features(model, data, images=3)
    assert sums[-1] == 8


def test_chance_is_off(films):
    model, data = built(films, "+backbone.args.drop_rate=0.5")
    means = []
    for seed in range(2):
        torch.manual_seed(seed)
        means.append(mean_features(model, data)[0])
    assert torch.equal(*means)


def test_nothing_is_compiled_for_it(films):
    model, data = built(films)
    compiled = []
    model.backbone.network.compile(backend=lambda graph, _: compiled.append(1) or graph.forward)
    mean_features(model, data)
    assert not compiled
