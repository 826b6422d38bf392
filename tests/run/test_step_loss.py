"""An optimizer step is the gradient of one mean, however its images are divided."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from fluoroscope import build
from fluoroscope.data.samplers import TrainSampler
from fluoroscope.errors import InputError
from fluoroscope.run.known_labels import KnownLabels
from fluoroscope.run.training_check import check_training
from tests.support.commands import together
from tests.support.films import TINY, config

LABELS = ["A", "B", "C"]
# Nothing mixes the images of a batch but the mean of the loss.
APART = [
    *("head.norm=layer", "head.dropout=0", "backbone.frozen=true", "trainer.max_epochs=1"),
    *("optimizer.lr=1e-2", "data.splits=given", "logger=csv"),
]
LOSSES = {"bce": ["loss.pos_weight=3"], "focal": ["loss.name=focal", "loss.pos_weight=2"]}


@pytest.fixture(scope="module")
def collection(films, tmp_path_factory):
    """A table of 64 training images with unknown labels, which some images have alone."""
    rng, paths = np.random.default_rng(3), sorted(films.rglob("*.png"))[:96]
    target = rng.integers(0, 2, (len(paths), 3)).astype(float)
    target[rng.random(target.shape) < 0.5] = np.nan
    table = pd.DataFrame(target, columns=LABELS).astype("Int64")
    table.insert(0, "file", [str(path.relative_to(films)) for path in paths])
    table.insert(1, "split", np.repeat(["train", "val", "test"], [64, 16, 16]))
    file = tmp_path_factory.mktemp("table") / "labels.csv"
    table.to_csv(file, index=False)
    return [f"data.root={films}", f"data.csv={file}"]


def configured(collection, *keys):
    own = ["data.labels=[A,B,C]", "data.path_column=file", "data.split_column=split"]
    return config(*TINY[1:], "data=table", *collection, *own, *APART, *keys)


class Recorder(pl.Callback):
    """Gradients and weights at each step, and what was logged."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        head = pl_module.head.state_dict()
        self.steps.append(
            (
                {name: value.clone() for name, value in head.items()},
                {name: p.grad.clone() for name, p in pl_module.head.named_parameters()},
            )
        )


def fit(collection, folder, *keys):
    """Weights of the head after an epoch, and the recorder of its steps."""
    cfg = configured(collection, *keys)
    folder.mkdir(parents=True, exist_ok=True)
    studies = build.build_studies(cfg)
    cfg.data.labels = studies.labels
    data = build.build_data(cfg, studies)
    torch.manual_seed(1)
    model = build.build_classifier(cfg, data)
    trainer = build.build_trainer(cfg, folder)
    recorder = Recorder()
    trainer.callbacks.extend([KnownLabels(), recorder])
    trainer.loggers = []
    trainer.limit_val_batches = 0
    trainer.fit(model, datamodule=data)
    return model, data, recorder


def save(collection, folder, *keys):
    model, _, _ = fit(collection, folder, *keys)
    torch.save(model.head.state_dict(), folder / "head.pt")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("batch", "accumulated"), [(8, 2), (4, 4)])
def test_accumulated_batches_are_one_batch(collection, tmp_path, batch, accumulated, loss):
    whole, _, steps = fit(collection, tmp_path, "data.batch_size=16", *LOSSES[loss])
    keys = [f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={accumulated}"]
    parts, _, _ = fit(collection, tmp_path, *keys, *LOSSES[loss])
    assert len(steps.steps) == 4
    torch.testing.assert_close(
        dict(parts.head.named_parameters()), dict(whole.head.named_parameters())
    )


def test_processes_are_one_process(collection, tmp_path):
    whole, _, _ = fit(collection, tmp_path, "data.batch_size=16")
    keys = ["data.batch_size=4", "trainer.accumulate_grad_batches=2"]
    keys += ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    together(partial(save, collection, tmp_path / "two", *keys), tmp_path)
    two = torch.load(tmp_path / "two/head.pt")
    torch.testing.assert_close(two, dict(whole.head.state_dict()))


def test_the_short_last_step_is_the_gradient_of_its_images(collection, tmp_path):
    """Three batches of 16 make a step; the fourth is a step of its own."""
    keys = ["data.batch_size=16", "trainer.accumulate_grad_batches=3"]
    model, data, recorder = fit(collection, tmp_path, *keys)
    before, gradients = recorder.steps[1]
    sampler = data.train_sampler()
    dataset = data._dataset("train", data.augmentation)
    rows = [dataset[draw] for draw in [*sampler][48:]]
    images, target = (torch.stack([row[key] for row in rows]) for key in ("image", "target"))
    model.head.load_state_dict(before)
    model.train()
    model.zero_grad()
    model.loss(model(images), target).backward()
    for name, parameter in model.head.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["trainer.accumulate_grad_batches=5"], r"accumulate_grad_batches=5 is more than .*\(4\)"),
        (
            ["trainer.accumulate_grad_batches=3", "trainer.limit_train_batches=2"],
            r"accumulate_grad_batches=3 is more than an epoch has batches \(2\); lower it",
        ),
        (["trainer.limit_train_batches=0.2"], "limit_train_batches=0.2 leaves none of 4 batches"),
        (["trainer.limit_val_batches=0.5"], "limit_val_batches=0.5 leaves none of 1 batches; rai"),
        (["trainer.limit_test_batches=0.01"], "such as trainer.limit_test_batches=1"),
    ],
)
def test_an_epoch_without_a_whole_step_is_refused(collection, keys, told):
    cfg = configured(collection, "data.batch_size=16", *keys)
    data = build.build_data(cfg, build.build_studies(cfg))
    with pytest.raises(InputError, match=told):
        check_training(cfg, data, 1)


@pytest.mark.parametrize(("weight", "told"), [("auto", True), ("null", False)])
def test_a_correction_for_rare_findings_that_is_made_twice_is_told(
    collection, recwarn, weight, told
):
    cfg = configured(collection, "data.sampler=balanced", f"loss.pos_weight={weight}")
    check_training(cfg, build.build_data(cfg, build.build_studies(cfg)), 1)
    wanted = "data.sampler=balanced and loss.pos_weight=auto both make rare findings count more"
    assert any(wanted in str(warning.message) for warning in recwarn) == told


def test_batches_that_are_left_out_are_not_counted_for_batch_norm(collection, recwarn):
    cfg = configured(collection, "head.norm=batch", "trainer.limit_train_batches=0.5")
    check_training(cfg, build.build_data(cfg, build.build_studies(cfg)), 1)
    assert "but this run has 4," in str(recwarn.pop(UserWarning).message)


def test_counts_are_those_of_the_labels():
    known = np.array([3, 0, 1, 2, 5, 4, 1])
    samplers = [TrainSampler(7, 1, 0, None, rank, 2, known) for rank in range(2)]
    order = samplers[0]._order()[0]
    by_batch = known[order[:6]].reshape(3, 2).sum(1)
    for sampler in samplers:
        in_batch, in_step = sampler.known_labels(2, 3)
        assert in_batch.tolist() == by_batch.tolist()
        assert in_step.tolist() == [by_batch[:2].sum()] * 2 + [by_batch[2]]
    assert samplers[0].known_labels(4, 2)[1].tolist() == [by_batch[:2].sum()] * 2
