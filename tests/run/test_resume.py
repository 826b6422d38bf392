"""A run that was stopped and continued against one that was not: the same to the last bit."""

import os
import signal
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from fluoroscope import build
from fluoroscope import train as training
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from fluoroscope.run.checkpoints import keep_as_best
from fluoroscope.run.metrics_file import rewind_metrics
from fluoroscope.run.opening import continues
from fluoroscope.run.preemption import SIGNALS, Preempted
from fluoroscope.run.resume import load_checkpoint, newest_checkpoint
from fluoroscope.train import train
from tests.support.commands import wait_for
from tests.support.films import tiny_config
from tests.support.forking import Forked
from tests.support.metrics import metric_rows

# Ten batches an epoch. Some units die, so that the census has something to count.
LONG = ["trainer.max_epochs=3", "trainer.log_every_n_steps=1", "diagnostics.every_n_steps=3"]
SHAKY = ["head.dropout=0.3", "optimizer.lr=1e-2", "run.save_every_n_steps=2"]
SAME = ("best_epoch", "units", "grad", "test", "val", "epochs", "steps", "postmortem")
LAYERS = "diagnostics.layers=[head.activation,backbone.*]"
CASES = {
    "plain": [],
    "workers": ["data.num_workers=2", "data.sampler=balanced"],
    "averaged": ["optimizer.ema_decay=0.9"],
    "accumulated": ["trainer.accumulate_grad_batches=3"],
    "layers": [LAYERS, "data.views=null"],
    "revived": ["diagnostics.revive_every_n_epochs=1", "head.bias_init=-0.3"],
    "centered": ["head.bias_init=centered", "head.order=norm-activation"],
    "patient": ["run.patience=1", "optimizer.backbone_lr=1e-3"],
    "lion": ["optimizer.name=lion", "schedule.name=one_cycle", "optimizer.layer_decay=0.8"],
    "sgd": ["optimizer.name=sgd", "schedule.name=step", "++optimizer.args.momentum=0.8"],
    "lamb": ["optimizer.name=lamb", "schedule.name=constant", "optimizer.ema_decay=0.9"],
}
BOTH = "centered and patient"
# Several of them in one run; the night tells which one of them it is.
SHARED = {
    "several": [*CASES["workers"], *CASES["averaged"], *CASES["accumulated"], *CASES["layers"]],
    BOTH: [*CASES["centered"], *CASES["patient"]],
    # Some images open no unit, and units die within an epoch.
    "dark": ["optimizer.lr=1e-1", "head.norm=none"],
}
SHARED["several"] += CASES["revived"]


class Stop(pl.Callback):
    """Ends the process's work as a kill would, at a given epoch and batch of a loop.

    Args:
        signum: sends this in place of it.
    """

    def __init__(self, epoch, batch, loop="train", signum=None):
        self.place, self.loop, self.signum = (epoch, batch), loop, signum

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._stop("train", trainer, batch_idx)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if not trainer.sanity_checking:
            self._stop("val", trainer, batch_idx)

    def _stop(self, loop, trainer, batch_idx):
        if loop == self.loop and (trainer.current_epoch, batch_idx) == self.place:
            if self.signum is None:
                raise KilledError
            signal.raise_signal(self.signum)


class KilledError(BaseException):
    """Not an `Exception`, so that nothing is saved on the way out."""


def train_with(monkeypatch, cfg, folder, callback):
    fitting = build._fitting
    with monkeypatch.context() as patch:
        patch.setattr(build, "_fitting", lambda *args: [*fitting(*args), callback])
        with pytest.raises((KilledError, Preempted, InputError)) as stopped:
            train(cfg, folder, [])
    return stopped.value


def weights(folder, name="last"):
    return torch.load(run_folder.checkpoint(folder, name), weights_only=True)


def tensors(state, prefix=""):
    """Every tensor below, by its place."""
    items = state.items() if isinstance(state, dict) else enumerate(state)
    for key, value in items:
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict | list | tuple):
            yield from tensors(value, f"{prefix}{key}.")


def assert_equal(whole, resumed):
    """The same weights, optimizer and callbacks, metrics, predictions and result."""
    assert metric_rows(whole) == metric_rows(resumed)
    for name in ("last", "best"):
        states = [dict(tensors(weights(folder, name))) for folder in (whole, resumed)]
        assert states[0].keys() == states[1].keys()
        for place, value in states[0].items():
            torch.testing.assert_close(states[1][place], value, rtol=0, atol=0, equal_nan=True)
    for split in ("val", "test"):
        files = [folder / f"predictions/{split}.csv" for folder in (whole, resumed)]
        assert files[0].read_text() == files[1].read_text()
    results = [run_folder.read_json(folder / run_folder.RESULT) for folder in (whole, resumed)]
    assert [results[0][key] for key in SAME] == [results[1][key] for key in SAME]
    files = [{p.name for p in folder.rglob("*") if p.is_file()} for folder in (whole, resumed)]
    assert files[0] == files[1]
    assert "step.ckpt" not in files[0]


@pytest.mark.parametrize(
    "case",
    [
        *("several", "dark", "lion"),
        *(pytest.param(c, marks=pytest.mark.whole) for c in (BOTH, *CASES) if c != "lion"),
    ],
)
def test_a_resumed_run_ends_where_an_unbroken_one_does(films, tmp_path, monkeypatch, case):
    cfg = tiny_config(films, *LONG, *SHAKY, *(CASES | SHARED)[case])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(cfg, whole, [])
    cfg.data.labels = None
    train_with(monkeypatch, cfg, broken, Stop(0 if case == "dark" else 1, 7))
    assert weights(broken, "step")["batches"] == 6  # one more batch was trained, and logged
    moved = broken.rename(tmp_path / "moved")
    cfg.run.resume = str(moved)
    train(cfg, moved, [])
    assert_equal(whole, moved)
    ids = [run_folder.read_json(moved / "provenance.json")[k] for k in ("run_id", "resumed_from")]
    assert ids[0] == ids[1]["run_id"]


REVIVED = CASES["revived"]


@pytest.mark.parametrize(
    ("signum", "loop", "place", "batches", "keys"),
    [
        (signal.SIGTERM, "train", (1, 4), 5, []),
        pytest.param(signal.SIGUSR1, "val", (2, 0), 10, REVIVED, marks=pytest.mark.whole),
        # The signals differ in what comes after.
        pytest.param(signal.SIGINT, "val", (1, 1), 10, [], marks=pytest.mark.whole),
        pytest.param(signal.SIGHUP, "train", (2, 3), 4, REVIVED, marks=pytest.mark.whole),
        pytest.param(signal.SIGUSR2, "train", (1, 4), 5, [], marks=pytest.mark.whole),
        pytest.param(
            signal.SIGUSR1, "train", (1, 4), 6, CASES["accumulated"], marks=pytest.mark.whole
        ),
        pytest.param(signal.SIGUSR1, "val", (0, 1), 10, CASES["averaged"], marks=pytest.mark.whole),
    ],
)
def test_a_signal_saves_at_the_next_batch(
    films, tmp_path, monkeypatch, signum, loop, place, batches, keys
):
    cfg = tiny_config(films, *LONG, "head.dropout=0.3", "optimizer.lr=1e-2", *keys)
    handlers = [signal.getsignal(s) for s in SIGNALS]
    whole, folder = tmp_path / "whole", tmp_path / "run"
    train(cfg, whole, [])
    stopped = train_with(monkeypatch, cfg, folder, Stop(*place, loop, signum))
    assert (stopped.code, stopped.signum) == (128 + signum, signum)
    step = weights(folder, "step")
    assert (step["epochs"], step["batches"]) == (place[0], batches)
    cfg.run.resume = str(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the monitor saw no pre-activation")
        train(cfg, folder, [])
    assert_equal(whole, folder)
    after = [signal.getsignal(s) for s in SIGNALS]
    assert handlers == after


def test_a_signal_after_the_last_batch_of_an_epoch_stops_before_the_next(
    films, tmp_path, monkeypatch
):
    class AtTheEnd(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            signal.raise_signal(signal.SIGUSR1)

    cfg = tiny_config(films, *LONG)
    train_with(monkeypatch, cfg, tmp_path / "run", AtTheEnd())
    assert not run_folder.checkpoint(tmp_path / "run", "step").exists()
    assert weights(tmp_path / "run")["epochs"] == 1


@pytest.mark.parametrize(
    "signum",
    [signal.SIGINT, *(pytest.param(s, marks=pytest.mark.whole) for s in SIGNALS[:-1])],
)
def test_a_signal_while_the_run_is_scored_loses_nothing(films, tmp_path, monkeypatch, signum):
    """The fit is saved, so that the run ends at once; a resume scores it again."""
    cfg, score = tiny_config(films, *LONG, "trainer.max_epochs=1"), training.score
    train(cfg, tmp_path / "whole", [])

    def interrupted(*args):
        score(*args)
        signal.raise_signal(signum)

    with monkeypatch.context() as patch:
        patch.setattr(training, "score", interrupted)
        with pytest.raises(Preempted) as stopped:
            train(cfg, tmp_path / "run", [])
    assert stopped.value.code == 128 + signum
    assert not (tmp_path / "run/result.json").exists()
    cfg.run.resume = str(tmp_path / "run")
    train(cfg, tmp_path / "run", [])
    assert_equal(tmp_path / "whole", tmp_path / "run")


def test_a_signal_before_the_fit_ends_the_run_at_once(films, tmp_path, monkeypatch):
    """Nothing is there to be saved yet."""
    cfg = tiny_config(films, *LONG)
    check = build.check_model
    told = lambda *args: (check(*args), signal.raise_signal(signal.SIGUSR1))  # noqa: E731
    monkeypatch.setattr(build, "check_model", told)
    with pytest.raises(Preempted):
        train(cfg, tmp_path / "run", [])
    assert not (tmp_path / "run/config.yaml").exists()


@pytest.mark.whole
def test_a_run_that_stopped_early_trains_no_further(films, tmp_path, monkeypatch):
    still = ["optimizer.lr=1e-12", "backbone.frozen=true", "head.norm=none"]
    cfg = tiny_config(films, "trainer.max_epochs=6", "run.patience=1", *still)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fluoroscope.train.score", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(cfg, folder, [])
    before = pd.read_csv(folder / "metrics.csv")
    cfg.run.resume = str(folder)
    assert train(cfg, folder, [])["epochs"] == 2
    after = pd.read_csv(folder / "metrics.csv")
    assert list(after["step"]) == [*before["step"], 20]  # the test's
    cfg.run.patience = 3
    assert train(cfg, folder, [])["epochs"] == 4


def test_a_run_that_ended_before_its_first_checkpoint_starts_again(films, tmp_path, monkeypatch):
    cfg = tiny_config(films, *LONG, "trainer.max_epochs=1")
    train(cfg, tmp_path / "whole", [])
    train_with(monkeypatch, cfg, tmp_path / "run", Stop(0, 5))
    cfg.run.resume = str(tmp_path / "run")
    train(cfg, tmp_path / "run", [])
    assert_equal(tmp_path / "whole", tmp_path / "run")


@pytest.fixture(scope="module")
def begun(films, tmp_path_factory):
    """A run that was stopped in its second epoch, after its first was the best."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    cfg = tiny_config(films, *LONG, "run.save_every_n_steps=1")
    with pytest.MonkeyPatch.context() as patch:
        train_with(patch, cfg, folder, Stop(1, 4))
    return cfg, folder


def copy_of(begun, tmp_path):
    cfg, folder = begun
    cfg = cfg.copy()
    cfg.run.resume = str(tmp_path / "run")
    for path in folder.rglob("*"):
        if path.is_file():
            copied = tmp_path / "run" / path.relative_to(folder)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    return cfg, tmp_path / "run"


def test_the_newest_checkpoint_is_the_one_that_is_furthest(begun, tmp_path):
    _, folder = copy_of(begun, tmp_path)
    os.utime(run_folder.checkpoint(folder, "last"))
    assert newest_checkpoint(folder)[0].stem == "step"
    run_folder.checkpoint(folder, "step").unlink()
    assert newest_checkpoint(folder)[0].stem == "last"


@pytest.mark.parametrize("kept", [0, 1, 5_000])
def test_a_damaged_checkpoint_is_passed_over_and_named(begun, tmp_path, kept):
    cfg, folder = copy_of(begun, tmp_path)
    step = run_folder.checkpoint(folder, "step")
    step.write_bytes(step.read_bytes()[:kept])
    with pytest.warns(UserWarning, match=r"step.ckpt is not a checkpoint .* it is ignored"):
        assert newest_checkpoint(folder)[0].stem == "last"
    for name in ("last", "best"):
        run_folder.checkpoint(folder, name).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="it is ignored"),
        pytest.raises(InputError, match=r"no checkpoint of .* can be read"),
    ):
        train(cfg, folder, [])


def test_a_kill_between_the_last_and_the_best_checkpoint_loses_neither(begun, tmp_path):
    cfg, folder = copy_of(begun, tmp_path)
    run_folder.checkpoint(folder, "step").unlink()
    run_folder.checkpoint(folder, "best").unlink()
    assert weights(folder)["callbacks"]["Saving"]["best_epoch"] == 1
    cfg.trainer.max_epochs = 1
    assert train(cfg, folder, [])["best_epoch"] == 1


def test_the_best_is_a_copy_of_its_own(tmp_path):
    last, best = (run_folder.checkpoint(tmp_path, name) for name in ("last", "best"))
    last.parent.mkdir()
    last.write_text("whole")
    keep_as_best(tmp_path)
    last.write_text("")
    assert best.read_text() == "whole"
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt", "best.ckpt"}


def test_auto_continues_what_was_begun_and_starts_what_was_not(begun, tmp_path):
    cfg, folder = copy_of(begun, tmp_path)
    cfg.run.resume = "auto"
    assert continues(cfg, folder, {})
    assert not continues(cfg, tmp_path / "new", {})
    cfg.run.resume = None
    assert not continues(cfg, folder, {})
    assert continues(cfg, folder, {"SLURM_RESTART_COUNT": "1"})
    assert not continues(cfg, folder, {"SLURM_RESTART_COUNT": "0"})
    cfg.run.resume, cfg.head.activation = "auto", "gelu"
    with pytest.raises(InputError, match=r"has head.activation=relu, .* head.activation=gelu"):
        continues(cfg, folder, {})


def test_auto_leaves_a_finished_run_as_it_is(begun, tmp_path, capsys):
    cfg, folder = copy_of(begun, tmp_path)
    first = train(cfg, folder, [])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    cfg.run.resume = "auto"
    assert train(cfg, folder, [])["test"]["auroc"] == first["test"]["auroc"]
    assert "this run is already finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_within_an_epoch_the_processes_must_be_as_many_as_before(begun, tmp_path):
    cfg, folder = copy_of(begun, tmp_path)
    cfg.trainer.devices, cfg.trainer.strategy = 2, "ddp"
    before = (folder / "metrics.csv").read_text()
    with pytest.raises(InputError, match=r"within an epoch by 1 process.*, but now there are 2"):
        train(cfg, folder, [])
    assert (folder / "metrics.csv").read_text() == before


@pytest.mark.parametrize(
    "key",
    [
        "data.batch_size=4",
        pytest.param("trainer.accumulate_grad_batches=2", marks=pytest.mark.whole),
    ],
)
def test_within_an_epoch_the_draws_must_be_as_before(begun, tmp_path, key):
    cfg, folder = copy_of(begun, tmp_path)
    name, _, value = key.partition("=")
    OmegaConf.update(cfg, name, int(value))
    before = (folder / "metrics.csv").read_text()
    with pytest.raises(InputError, match=f"within an epoch with {name}=.*, but now {name}={value}"):
        train(cfg, folder, [])
    assert (folder / "metrics.csv").read_text() == before
    (folder / "checkpoints/step.ckpt").unlink()
    assert train(cfg, folder, [])["epochs"] == 3


def test_a_finished_run_that_goes_on_has_not_finished(films, tmp_path, monkeypatch):
    cfg = tiny_config(films, *LONG, "trainer.max_epochs=1")
    train(cfg, tmp_path / "run", [])
    cfg.run.resume, cfg.trainer.max_epochs = str(tmp_path / "run"), 3
    train_with(monkeypatch, cfg, tmp_path / "run", Stop(1, 4))
    assert not (tmp_path / "run/result.json").exists()


def test_an_error_of_the_loader_loses_nothing(films, tmp_path, monkeypatch):
    """An image vanishes; once it is back the run ends as if nothing had been."""
    from fluoroscope.data import datamodule

    cfg = tiny_config(films, *LONG)
    train(cfg, tmp_path / "whole", [])
    read, reads = datamodule.read_image, []

    def vanishing(path):
        reads.append(path)
        return read(path if len(reads) != 150 else Path("gone.png"))

    with monkeypatch.context() as patch:
        patch.setattr(datamodule, "read_image", vanishing)
        with pytest.raises(InputError, match=r"cannot read image gone\.png"):
            train(cfg, tmp_path / "run", [])
    step = weights(tmp_path / "run", "step")
    assert step["epochs"] == 1
    assert 0 < step["batches"] < 10
    cfg.run.resume = str(tmp_path / "run")
    train(cfg, tmp_path / "run", [])
    assert_equal(tmp_path / "whole", tmp_path / "run")


def hold(folder):
    with run_folder.locked(folder):
        (folder / "held").touch()
        time.sleep(60)


def test_two_processes_do_not_write_the_same_run(begun, tmp_path):
    cfg, folder = copy_of(begun, tmp_path)
    other = Forked(partial(hold, folder), tmp_path)
    try:
        wait_for(folder / "held", other)
        with pytest.raises(InputError, match="another process is writing the run in"):
            train(cfg, folder, [])
    finally:
        other.kill()  # the lock goes with it
        other.wait()
    assert train(cfg, folder, [])["epochs"] == 3


def test_rows_that_a_kill_cut_off_are_dropped(tmp_path):
    rows = pd.DataFrame({"step": np.arange(40), "train/loss": np.arange(40) / 7})
    text = rows.to_csv(index=False)
    (tmp_path / "metrics.csv").write_text(text[: text.rindex("39,") + 1])  # "3" of its 39
    rewind_metrics(tmp_path / "metrics.csv", 35)
    assert (tmp_path / "metrics.csv").read_text() == rows[:35].to_csv(index=False)


def test_a_flipped_bit_of_a_checkpoint_is_damage(begun, tmp_path):
    """The loader itself compares nothing with the checksums in the file."""
    _, folder = copy_of(begun, tmp_path)
    path = run_folder.checkpoint(folder, "last")
    weight = load_checkpoint(path)["state_dict"]["head.dense.weight"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weight) + 3] ^= 0x80  # the sign of the first number
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"last.ckpt is not a checkpoint .*, or is damaged"):
        load_checkpoint(path)
