"""A sweep that was stopped, killed or failed goes on with the same command and one more key."""

import itertools
import shlex
import signal
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from fluoroscope import train as training
from fluoroscope.errors import InputError
from fluoroscope.model.classifier import Classifier
from fluoroscope.run import run_folder
from fluoroscope.run.opening import continues
from tests.run.test_resume import assert_equal

SWEPT = ["-m", "backbone=lite0", "head.width=31", "seed=1,2,3"]


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.whole)]
)
def test_a_stopped_sweep_goes_on_with_the_command_that_it_prints(
    call, tiny, tmp_path, monkeypatch, signum
):
    """One run has finished, one was stopped and saved, one has not started."""
    keys = [*tiny, "trainer.max_epochs=2", "head.activation_args={}"]
    sweep = ["hydra.sweep.dir='a sweep'", "seed=1,2,3"]
    step, steps = Classifier.training_step, itertools.count()

    def stepped(self, batch, batch_idx):
        if next(steps) == 20 + 14:  # in the fifth batch of the second epoch of the second run
            signal.raise_signal(signum)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stepped)
        code, out, err = call("-m", *keys, *sweep)
    assert (code, "Traceback" in err) == (128 + signum, False)
    first, second = sorted((tmp_path / "a sweep").glob("*/"))
    assert (first.name, second.name) == ("0-relu-s1", "1-relu-s2")
    before = (first / "result.json").stat().st_mtime_ns
    assert not (second / "result.json").exists()
    last = out.splitlines()[-1]
    assert last.startswith("sweep    stopped, 1 run finished; continue with: python ")
    words = shlex.split(last.partition("train.py ")[2])
    assert words[-1] == "run.resume=a sweep"

    code, out, err = call(*words)
    assert (code, "Traceback" in err) == (0, False)
    assert "this run is already finished: a sweep/0-relu-s1" in out
    assert "continues after 1 epoch and 5 batches (step.ckpt)" in out
    assert "3 of 3 runs finished" in out
    assert (first / "result.json").stat().st_mtime_ns == before
    assert call(*keys, "seed=2", "run.dir=whole")[0] == 0
    assert_equal(tmp_path / "whole", second)
    code, out, _ = call("-m", *keys, *sweep, "run.resume=auto")
    assert (code, out.count("this run is already finished")) == (0, 3)


@pytest.fixture
def runs(monkeypatch):
    """Runs in name only, and how those of some seeds end: `failing` ones have written files."""
    of = SimpleNamespace(called=[], failing={}, refused={})

    def train(cfg, folder, overrides):
        resumes = continues(cfg, folder)
        if resumes and (folder / "result.json").exists():
            return run_folder.read_json(folder / "result.json")
        of.called.append((cfg.seed, resumes))
        if cfg.seed in of.refused:
            raise of.refused[cfg.seed]
        run_folder.write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))
        run_folder.write_text(folder / "metrics.csv", "")
        if cfg.seed in of.failing:
            raise of.failing[cfg.seed]
        (folder / "failed.json").unlink(missing_ok=True)
        run_folder.write_json(folder / "result.json", {"val": {"auroc": 0.5}})
        return {"val": {"auroc": 0.5}}

    monkeypatch.setattr(training, "train", train)
    return of


@pytest.mark.whole
def test_a_resumed_sweep_tries_failed_runs_again(call, runs):
    runs.failing |= {1: RuntimeError("the disk"), 3: InputError("no image")}
    assert call(*SWEPT, "hydra.sweep.dir=all")[0] == 1
    assert runs.called == [(1, False), (2, False), (3, False)]
    runs.called.clear()
    runs.failing.clear()
    code, out, err = call(*SWEPT, "run.resume=all")
    assert (code, err, runs.called) == (0, "", [(1, True), (3, True)])
    assert "3 of 3 runs finished" in out
    assert (call(*SWEPT, "run.resume=all")[0], len(runs.called)) == (0, 2)


@pytest.mark.whole
def test_a_run_that_was_refused_starts_as_a_new_one(call, runs, tmp_path):
    """The sweep wrote its configuration as it was given, without what a remedy changes in it."""
    runs.refused |= {1: InputError("no image")}
    remedies = ["-m", "backbone=lite0", "experiment=remedies", "run.remedy=leaky_relu", "seed=1,2"]
    assert call(*remedies, "hydra.sweep.dir=all")[0] == 2
    (refused,) = tmp_path.glob("all/*/failed.json")
    runs.refused.clear()
    code, _, err = call(*remedies, "run.resume=all")
    assert (code, err, runs.called[2:]) == (0, "", [(1, False)])
    assert not refused.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*SWEPT[:-1], "seed=1,2,3,4"], "all has seed=1,2,3, but this command has seed=1,2,3,4;"),
        pytest.param(
            [*SWEPT, "head.dropout=0.1"],
            "has fewer keys, but this command has head.dropout=0.1;",
            marks=pytest.mark.whole,
        ),
        (["-m", SWEPT[1], SWEPT[3]], "all has head.width=31, but this command has fewer keys;"),
        pytest.param(
            [*SWEPT, "run.resume=all,other"], "with -m it names one folder", marks=pytest.mark.whole
        ),
        pytest.param(
            [*SWEPT, "run.resume=nowhere"],
            "nowhere holds no sweep (it has no multirun.yaml)",
            marks=pytest.mark.whole,
        ),
        ([*SWEPT, "run.resume=all/0-relu-s1"], "it is one run: leave out -m"),
        pytest.param(
            [*SWEPT, "run.resume=auto"],
            "add hydra.sweep.dir=FOLDER, or name",
            marks=pytest.mark.whole,
        ),
        pytest.param(
            [*SWEPT, "hydra.sweep.dir=other"], "name two folders", marks=pytest.mark.whole
        ),
        pytest.param(
            [*SWEPT, "hydra/sweeper=tune"],
            "a search cannot be resumed; start it with hydra.",
            marks=pytest.mark.whole,
        ),
    ],
)
def test_another_command_does_not_continue_a_sweep(call, runs, tmp_path, arguments, told):
    assert call(*SWEPT, "hydra.sweep.dir=all")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    resume = [] if any("run.resume" in word for word in arguments) else ["run.resume=all"]
    code, out, err = call(*arguments, *resume)
    assert (code, out, err.count("\n"), told in err) == (2, "", 1, True), err
    assert len(runs.called) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.whole
def test_swept_keys_in_another_order_do_not_continue_a_sweep(call, runs):
    """Its runs would have other numbers; other keys may come in any order."""
    keys = ["head.activation=relu,elu", "seed=1,2", "head.width=31", "backbone=lite0"]
    assert call("-m", *keys, "hydra.sweep.dir=all")[0] == 0
    code, _, err = call("-m", keys[1], keys[0], *keys[2:], "run.resume=all")
    assert (code, "another order of keys" in err) == (2, True)
    assert call("run.resume=all", *reversed(keys[2:]), *keys[:2], "-m")[0] == 0
    assert len(runs.called) == 4


@pytest.mark.whole
@pytest.mark.parametrize(
    "text", ["", "[]", "3", "hydra: {}", "hydra: [1", "\0", "hydra: ${oc.env:HOME}"]
)
def test_a_damaged_record_of_a_sweep_is_refused(call, runs, tmp_path, text):
    assert call(*SWEPT, "hydra.sweep.dir=all")[0] == 0
    (tmp_path / "all/multirun.yaml").write_text(text)
    code, out, err = call(*SWEPT, "run.resume=all")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot read all/multirun.yaml; start a new sweep" in err


def test_a_folder_that_is_given_each_time_holds_one_sweep(call, runs):
    """The same command in a script that is started again and again."""
    again = [*SWEPT, "hydra.sweep.dir=all", "run.resume=auto"]
    runs.failing |= {2: RuntimeError("the disk")}
    assert [call(*again)[0], len(runs.called)] == [1, 3]
    runs.failing.clear()
    assert [call(*again)[0], len(runs.called)] == [0, 4]
    assert call(*SWEPT, "hydra.sweep.dir=all")[0] == 2
