"""The learning rate of a resumed run: that of an unbroken run with the same keys, step by step."""

import re
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from fluoroscope import build
from fluoroscope.choices import SCHEDULES
from fluoroscope.model.optimizer import warmup_cosine
from fluoroscope.model.schedules import make_schedule
from fluoroscope.run import schedule
from fluoroscope.run.resume import Start
from fluoroscope.train import train
from tests.run.test_resume import Stop, train_with
from tests.support.films import tiny_config

LR = (3e-3, 1e-4)


def rates(epochs, of_epoch, name="cosine"):
    """Learning rates of the two groups in every step of an unbroken run."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in LR])
    if name == "cosine":
        following = warmup_cosine(optimizer, int(0.1 * epochs * of_epoch), epochs * of_epoch)
    else:
        keys = {"milestones": [0.3, 0.8], "gamma": 0.2}
        following = make_schedule(optimizer, 0.1, epochs * of_epoch, name, **keys)
    return following, optimizer, list(_steps(following, optimizer, epochs * of_epoch))


def _steps(following, optimizer, count):
    for _ in range(count):
        yield [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        following.step()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("before", "after", "finished", "batches"),
    [
        ((4, 10), (4, 10), 2, 0),  # nothing has changed
        ((4, 10), (4, 10), 2, 7),
        ((2, 10), (7, 10), 2, 0),  # a finished run gets more epochs
        ((9, 10), (3, 10), 2, 4),
        ((4, 10), (4, 5), 2, 0),  # another batch size, limit or number of processes
        ((4, 5), (4, 13), 3, 0),
        ((4, 10), (11, 3), 4, 0),
    ],
)
def test_the_rates_are_those_of_a_run_that_always_had_the_new_keys(
    before, after, finished, batches, name, capsys
):
    step = finished * before[1] + batches
    following, optimizer, _ = rates(*after, name)  # restored: only the count is kept
    following.last_epoch, following._last_lr = step, [2e-3, 2e-3]
    trainer = SimpleNamespace(
        lr_scheduler_configs=[SimpleNamespace(scheduler=following)],
        num_training_batches=3 * after[1] - 1,
        accumulate_grad_batches=3,
        max_epochs=after[0],
        is_global_zero=True,
    )
    schedule.follow(trainer, Start(epochs=finished, batches=3 * batches, step=step))
    expected = rates(*after, name)[2][finished * after[1] + batches :]
    assert list(_steps(following, optimizer, len(expected))) == expected
    line = (
        f"continues at {expected[0][0]:.3g}, not at 0.002: its schedule spans trainer.max_epochs="
    )
    assert f"{line}{after[0]} of {after[1]} steps now" in capsys.readouterr().out


class Rates(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append([group["lr"] for group in optimizer.param_groups])


def trained(monkeypatch, cfg, folder):
    watching, fitting = Rates(), build._fitting
    with monkeypatch.context() as patch:
        patch.setattr(build, "_fitting", lambda *args: [*fitting(*args), watching])
        train(cfg, folder, [])
    return watching.seen


def test_a_run_that_goes_on_has_no_step_without_a_rate(films, tmp_path, monkeypatch, capsys):
    longer = ["trainer.max_epochs=4", "trainer.accumulate_grad_batches=3", "head.norm=none"]
    unbroken = trained(monkeypatch, tiny_config(films, *longer), tmp_path / "unbroken")
    cfg = tiny_config(films, *longer, "trainer.max_epochs=2")
    train(cfg, tmp_path / "run", [])
    cfg.run.resume, cfg.trainer.max_epochs = str(tmp_path / "run"), 4
    capsys.readouterr()
    assert trained(monkeypatch, cfg, tmp_path / "run") == unbroken[8:]
    line = f"the learning rate continues at {unbroken[8][0]:.3g}, not at 0: its schedule spans"
    assert line in capsys.readouterr().out


@pytest.mark.whole
def test_another_batch_size_keeps_the_place_in_the_schedule(films, tmp_path, monkeypatch, capsys):
    cfg = tiny_config(films, "trainer.max_epochs=4")
    smaller = tiny_config(films, "trainer.max_epochs=4", "data.batch_size=4")
    unbroken = trained(monkeypatch, smaller, tmp_path / "unbroken")
    train_with(monkeypatch, cfg, tmp_path / "run", Stop(2, 0))
    cfg.run.resume, cfg.data.batch_size = str(tmp_path / "run"), 4
    capsys.readouterr()
    assert trained(monkeypatch, cfg, tmp_path / "run") == unbroken[2 * len(unbroken) // 4 :]
    now = unbroken[2 * len(unbroken) // 4][0]
    out = capsys.readouterr().out
    # Its warm-up counts steps, so the curve of smaller batches differs a little.
    line = f"the learning rate continues at {now:.3g}, not at "
    steps = len(unbroken) // 4
    assert re.search(rf"{line}[\d.]+: .* trainer.max_epochs=4 of {steps} steps now\n", out)


STILL = ["optimizer.lr=1e-12", "backbone.frozen=true", "head.norm=none"]


def test_patience_that_ends_a_run_is_named_at_its_end_and_at_a_resume(films, tmp_path, capsys):
    cfg = tiny_config(films, "trainer.max_epochs=6", "run.patience=1", *STILL)
    train(cfg, tmp_path / "run", [])
    ended = "1 epoch without a better val/auroc (run.patience=1)"
    assert f"stopped after epoch 2: {ended}\n" in capsys.readouterr().out
    cfg.run.resume = str(tmp_path / "run")
    cfg.trainer.max_epochs = 8
    assert train(cfg, tmp_path / "run", [])["epochs"] == 2
    out = capsys.readouterr().out
    assert f"the run stopped after {ended}; raise run.patience to train on\n" in out
    cfg.run.patience, cfg.trainer.max_epochs = 3, 2
    train(cfg, tmp_path / "run", [])
    assert "has trained its 2 epochs; raise trainer.max_epochs to train on" in (
        capsys.readouterr().out
    )
