"""Several runs of one command: which ones, each on its own, what fails, what a search finds."""

import itertools
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from fluoroscope import build
from fluoroscope import train as training
from fluoroscope.command import sweep
from fluoroscope.config import CONF
from fluoroscope.errors import InputError
from fluoroscope.launch import run_status
from fluoroscope.model.classifier import Classifier
from fluoroscope.run import run_folder
from tests.launch.test_launch_check import job as in_job
from tests.support import commands
from tests.support.films import IMAGES, PATIENTS, config
from tests.support.sweep_server import SWEEP, SweepServer
from tests.support.wandb_log import OfflineRun

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "scripts/sweep").glob("*.yaml"))
# `wandb sweep` and `wandb agent` in one process, and without the pauses of five seconds.
CLIENT = """
import sys
from wandb.cli.cli import cli
from wandb.wandb_agent import Agent
Agent.POLL_INTERVAL = 0.5
cli(["sweep", "sweep.yaml"], standalone_mode=False)
cli(["agent", sys.argv[1]], standalone_mode=False)
"""
TUNE = ["hydra/sweeper=tune", "hydra.sweep.dir=search"]


def fail_in(monkeypatch, error, *failing):
    """The first training step of these runs, counted from 0, raises the error."""
    step, started = Classifier.training_step, itertools.count()

    def stepped(self, batch, batch_idx):
        if self.trainer.global_step == 0 and next(started) in failing:
            raise error
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", stepped)


def refuse_activation(monkeypatch, refused):
    """A run with this activation is refused once its data are read, which no check foresees."""
    make = build.build_classifier

    def made(cfg, *args, **keys):
        if cfg.head.activation == refused:
            raise InputError(f"the head cannot use {refused}")
        return make(cfg, *args, **keys)

    monkeypatch.setattr(build, "build_classifier", made)


# How a run ended ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_stopped_has_not_failed(tmp_path, stop):
    with pytest.raises(stop), run_status.failure_marked(tmp_path, lambda: True):
        raise stop
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_not_begun_is_not_marked(tmp_path):
    with pytest.raises(ValueError, match="x"), run_status.failure_marked(tmp_path, lambda: False):
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_hide_the_error(tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(ValueError, match="x"), run_status.failure_marked(gone, lambda: True):
        raise ValueError("x")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"error": 1, "exit_code": 2}', "\0"])
def test_a_damaged_mark_is_none(tmp_path, text):
    (tmp_path / "failed.json").write_text(text)
    assert run_status.failure(tmp_path) is None


def test_a_failed_run_is_marked_until_it_is_continued(call, tiny, tmp_path, monkeypatch):
    fail_in(monkeypatch, InputError("the loss is not finite"), 0)
    assert call(*tiny, "run.dir=run")[0] == 2
    failure = run_status.failure(tmp_path / "run")
    assert failure["exit_code"] == 2
    assert failure["error"].startswith("InputError in train.py")  # made here, outside the program
    assert call("run.resume=run")[0] == 0
    assert run_status.failure(tmp_path / "run") is None
    assert (tmp_path / "run/result.json").exists()
    code, _, err = call(*tiny, "run.dir=run")  # it holds a run, which must not count as failed
    assert (code, "already holds a run" in err) == (2, True)
    assert not (tmp_path / "run/failed.json").exists()


# Which runs --------------------------------------------------------------------------------------


def planned(*overrides):
    """The folder and the overrides of the runs that are checked first."""
    config()  # registers the resolver
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return sweep.plan("train", [*overrides])


def test_every_value_of_a_sweep_is_checked_before_the_first_run():
    overrides = [
        "head.activation=relu,gelu,elu",
        "seed=range(1,5)",
        "data=glob(ph*)",
        "head.width=8",
    ]
    _, jobs = planned(*overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        (batch,) = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)
    assert len(batch) == 12
    assert len(jobs) == 4
    assert {value for job in jobs for value in job} == {value for job in batch for value in job}


def test_a_search_shows_the_ends_of_its_intervals():
    _, jobs = planned(*TUNE, "optimizer.lr=0.5", "head.dropout=interval(0.0,0.4)")
    fixed = [*TUNE, "optimizer.lr=0.5"]
    ends = [("1e-05", "0.0"), ("0.001", "0.4")]
    for job, (backbone_lr, dropout) in zip(jobs, ends, strict=True):
        assert job[-4:] == [*fixed, f"head.dropout={dropout}"]  # what comes last wins
        assert f"optimizer.backbone_lr={backbone_lr}" in job


@pytest.mark.parametrize("name", ["a b", "it's", "a,b=c", "[x]", "back\\slash", "ü"])
def test_the_folder_that_was_looked_at_is_the_one_that_is_used(name):
    folder, _ = planned(f"hydra.sweep.dir='{name.replace(chr(39), chr(92) + chr(39))}'", "seed=1,2")
    assert str(folder) == name
    (parsed,) = OverridesParser.create().parse_overrides(sweep.placed([], folder))
    assert parsed.value() == name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-m", "hydra/sweeper=optuna"], "which hydra/sweeper=optuna would minimise; use hydra/"),
        (["hydra/sweeper=tune"], "hydra/sweeper=tune is for several runs; add -m"),
        (["-m", *TUNE, "optimizer.lr=interval(-1.0,1.0)"], "lr must be at least 0; got -1.0"),
        (["-m", *TUNE, "optimizer.lrr=1"], "there is no key optimizer.lrr (did you mean"),
        (
            ["-m", "hydra/launcher=dask"],
            "got 'dask'; more come with pip install -e '.[launchers]'",
        ),
        (
            ["-m", "hydra.sweep.dir=taken", "seed=1,2"],
            "holds runs; continue them with run.resume=taken",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused_at_once(call, tmp_path, arguments, told):
    (tmp_path / "taken/0-relu-s1").mkdir(parents=True)
    (tmp_path / "taken/0-relu-s1/result.json").touch()
    code, out, err = call(*arguments, "data=folder", "data.root=nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert {path.name for path in tmp_path.iterdir()} <= {"taken", "wandb-settings"}


# What fails --------------------------------------------------------------------------------------


def test_each_run_is_its_own_and_one_that_fails_leaves_the_others(
    call, tiny, tmp_path, monkeypatch, films
):
    fail_in(monkeypatch, RuntimeError(f"cannot read {films}/p013_1.png"), 0)
    refuse_activation(monkeypatch, "celu")
    keys = ["head.activation=gelu,celu,relu,elu", "hydra.sweep.dir=all", "logger=wandb"]
    code, out, err = call("-m", *tiny, *keys, "logger.mode=offline")
    assert code == 1
    assert err.count("Traceback") == err.count("RuntimeError: cannot read") == 1
    assert err.count("fluoroscope: the head cannot use celu") == 1

    gelu, celu, relu, elu = sorted((tmp_path / "all").glob("*/"))
    assert (gelu.name, celu.name, relu.name) == ("0-gelu-s1", "1-celu-s1", "2-relu-s1")
    told = run_folder.read_json(gelu / "failed.json")["error"]
    assert re.fullmatch(r"RuntimeError in train\.py, line \d+", told)
    assert run_folder.read_json(relu / "result.json")["activation"] == "relu"
    assert not (relu / "failed.json").exists()
    # The refused run says what it was to be, so that a report can count it.
    assert sorted(path.name for path in celu.iterdir()) == ["config.yaml", "failed.json"]
    assert OmegaConf.load(celu / "config.yaml").run.name == "celu-s1"

    logs = {folder: OfflineRun(folder) for folder in (gelu, relu, elu)}
    assert {log.identity.run_group for log in logs.values()} == {"default-folder"}
    assert [log.exit_code for log in logs.values()] == [1, 0, 0]
    for folder, log in logs.items():
        assert log.identity.run_id == run_folder.read_json(folder / "provenance.json")["run_id"]
        assert log.config["head"]["activation"] == folder.name.split("-")[1]
        assert log.identity.display_name == log.config["run"]["name"]
    assert len({log.identity.run_id for log in logs.values()}) == 3

    end = out.splitlines()[-4:]
    assert end[0] == "sweep    2 of 4 runs finished, in all"
    assert end[1] == f"failed   0-gelu-s1: {told}"
    assert end[2].startswith("failed   1-celu-s1: InputError in train.py")
    assert end[3] == "compare  python scripts/report.py runs=all"


@pytest.mark.whole
def test_the_command_at_the_end_of_a_sweep_reports_its_folds(films, tmp_path):
    keys = ["data.fold=1/3,2/3,3/3", "head.activation=relu,identity", "hydra.sweep.dir=all"]
    out, _ = commands.run(["-m", *commands.tiny_arguments(films), *keys], tmp_path)
    told = out.splitlines()[-1]
    assert told == "compare  python scripts/report.py runs=all"
    out, _ = commands.run([told.rpartition(" ")[2]], tmp_path, script="report")
    assert "folds 1, 2, 3 of 3; each image is scored by the model that has not seen it" in out
    for name in ("relu", "identity"):
        table = pd.read_csv(tmp_path / f"all/report/out_of_fold/{name}-s1.csv")
        assert sorted(table["row"]) == list(range(PATIENTS * IMAGES))
        assert table.groupby("group")["fold"].nunique().eq(1).all()
        assert "wrote all/report/out_of_fold" in out


def test_a_sweep_that_is_stopped_stops(call, tiny, tmp_path, monkeypatch):
    fail_in(monkeypatch, SystemExit(143), 0)
    code, out, _ = call("-m", *tiny, "seed=1,2", "hydra.sweep.dir=all")
    assert (code, "compare" in out) == (143, False)
    assert [path.name for path in (tmp_path / "all").glob("*/")] == ["0-relu-s1"]
    assert not (tmp_path / "all/0-relu-s1/failed.json").exists()


@pytest.mark.whole
def test_a_sweep_whose_job_is_queued_again_goes_on_in_its_folder(call, tiny, tmp_path, monkeypatch):
    for name, value in in_job().items():
        monkeypatch.setenv(name, value)
    arguments = ["-m", *tiny, "seed=1,2"]
    with monkeypatch.context() as patch:
        fail_in(patch, SystemExit(143), 1)
        assert call(*arguments)[0] == 143
    folder = tmp_path / "outputs/slurm-127-sweep"
    first = (folder / "0-relu-s1/result.json").read_text()
    assert call(*arguments)[0] == 2  # another command in the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "this run is already finished" in out
    assert "2 of 2 runs finished" in out
    assert (folder / "0-relu-s1/result.json").read_text() == first
    assert list((tmp_path / "outputs").glob("*/*/result.json")) != []
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["slurm-127-sweep"]


def folder_of(place, **files):
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name.replace("_", ".")).write_text(text)


def test_how_a_sweep_ended_is_read_from_its_folders(tmp_path, monkeypatch, capsys):
    """So that it is the same where other processes ran them."""
    monkeypatch.chdir(tmp_path)
    folder_of(Path("s/2-a"), config_yaml="", result_json="{}")
    folder_of(Path("s/10-b"), config_yaml="", failed_json='{"error": "no", "exit_code": 2}')
    assert sweep.conclude(Path("s"), True, []) == 2
    folder_of(Path("s/9-c"), config_yaml="")
    assert sweep.conclude(Path("s"), False, []) == 1
    folder_of(Path("s/.submitit/7"), config_txt="")
    (Path("s/9-c") / "failed.json").write_text('{"error": "Error: x", "exit_code": 1}')
    assert sweep.conclude(Path("s"), True, []) == 1
    compare = "compare  python scripts/report.py runs=s"
    unfinished = "failed   9-c: was stopped before its end; continue with run.resume=s/9-c"
    assert capsys.readouterr().out.splitlines() == [
        *("sweep    1 of 2 runs finished, in s", "failed   10-b: no", compare),
        *("sweep    1 of 3 runs finished, in s", unfinished, "failed   10-b: no"),
        *("sweep    1 of 3 runs finished, in s", "failed   9-c: Error: x", "failed   10-b: no"),
        compare,
    ]


def test_a_sweep_of_refused_runs_leaves_nothing_and_tells_why_once(tmp_path, capsys):
    for name in ("0-a", "1-b"):
        refusal = '{"error": "no such thing", "exit_code": 2}'
        folder_of(tmp_path / "s" / name, config_yaml="", failed_json=refusal)
    (tmp_path / "s/multirun.yaml").touch()
    assert sweep.conclude(tmp_path / "s", True, []) == 2
    assert capsys.readouterr() == ("", "fluoroscope: no such thing\n")
    assert list(tmp_path.iterdir()) == []


# A search ----------------------------------------------------------------------------------------


@pytest.fixture
def trials(monkeypatch):
    """A run in name only: its AUROC is highest at a learning rate of 2e-3 of the head. Trials 1
    and 3 have no AUROC, the second of them because it crashes.
    """
    done = []

    def train(cfg, folder, overrides):
        auroc = 1 - abs(math.log10(cfg.optimizer.lr / 2e-3)) / 3
        done.append((cfg.optimizer.lr, cfg.optimizer.backbone_lr, auroc))
        if len(done) == 4:
            raise RuntimeError("crash")
        scores = {"val": {"auroc": math.nan if len(done) == 2 else auroc}}
        run_folder.write_json(folder / "result.json", scores)
        return scores

    monkeypatch.setattr(training, "train", train)
    return done


def test_a_search_finds_the_best_of_the_trials_that_did_not_fail(call, trials, tmp_path):
    code, out, err = call(
        "-m", "backbone=lite0", *TUNE, "hydra.sweeper.n_trials=12", "optimizer.backbone_lr=1e-4"
    )
    assert (code, err.count("Traceback"), len(trials)) == (1, 1, 12)
    assert {backbone_lr for _, backbone_lr, _ in trials} == {1e-4}
    assert all(1e-4 <= lr <= 1e-2 for lr, _, _ in trials)
    assert len({lr for lr, _, _ in trials}) == 12
    counted = [trial for number, trial in enumerate(trials) if number not in (1, 3)]
    lr, _, auroc = max(counted, key=lambda trial: trial[2])
    found = OmegaConf.load(tmp_path / "search/optimization_results.yaml")
    assert (found.best_value, found.best_params) == (auroc, {"optimizer.lr": lr})
    assert len(list(tmp_path.glob("search/*/result.json"))) == 11
    assert [path.parent.name for path in tmp_path.glob("search/*/failed.json")] == ["3-relu-s1"]
    assert f"best     {auroc:.3f} with optimizer.lr={lr}" in out.splitlines()


def test_a_sweep_lies_where_it_was_looked_for_though_the_clock_went_on(
    call, trials, tmp_path, monkeypatch
):
    # Between the check of the command and its start.
    monkeypatch.setattr(sweep, "quiet_optuna", lambda: time.sleep(1.1))
    code, out, _ = call("-m", "backbone=lite0", "seed=1,2")
    (folder,) = tmp_path.glob("outputs/*-sweep")
    assert (code, len(trials)) == (0, 2)
    assert f"sweep    2 of 2 runs finished, in outputs/{folder.name}" in out


@pytest.mark.whole
def test_the_same_seed_tries_the_same_values(call, trials):
    call("-m", "backbone=lite0", *TUNE, "hydra.sweeper.n_trials=3", "hydra.sweep.dir=a")
    call("-m", "backbone=lite0", *TUNE, "hydra.sweeper.n_trials=3", "hydra.sweep.dir=b")
    assert trials[:3] == trials[3:]


def test_a_search_in_which_every_trial_fails_says_why_and_no_more(
    call, tiny, monkeypatch, tmp_path
):
    def train(*_):
        raise InputError("too few images")

    monkeypatch.setattr(training, "train", train)
    code, out, err = call("-m", "backbone=lite0", *TUNE, *tiny, "hydra.sweeper.n_trials=3")
    assert (code, out) == (2, "")
    assert err.count("too few images") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "search").exists()


# W&B's sweeps ------------------------------------------------------------------------------------


def test_a_run_of_an_agent_has_the_id_that_the_agent_waits_for(monkeypatch):
    first, second = run_folder.new_run_id(), run_folder.new_run_id()
    assert first != second
    assert all(len(run_id) == 8 and run_id.isalnum() for run_id in (first, second))
    monkeypatch.setenv("WANDB_RUN_ID", "left-over")
    assert run_folder.new_run_id() != "left-over"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert run_folder.new_run_id() == "left-over"


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_for_w_and_b_set_keys_that_a_run_has(file, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    written = yaml.safe_load(file.read_text())
    assert written["method"] in ("grid", "random", "bayes")
    assert written["metric"] == {"name": "val/auroc", "goal": "maximize"}
    assert (ROOT / written["program"]).is_file()
    ends = {k: p.get("values") or [p["min"], p["max"]] for k, p in written["parameters"].items()}
    for values in itertools.zip_longest(*ends.values()):
        args = {k: {"value": v} for k, v in zip(ends, values, strict=True) if v is not None}
        known = create_sweep_command_args({"args": args})
        words = create_sweep_command(list(written["command"]))[3:]  # env, interpreter, program
        words = [known[w[2:-1]] if w == "${args_no_hyphens}" else [w] for w in words]
        cfg = config(*itertools.chain(*words))
        assert cfg.run.dir == f"outputs/sweep-s1/{cfg.run.name}-r1"
        for key, setting in args.items():
            assert OmegaConf.select(cfg, key) == setting["value"]


@pytest.mark.whole
def test_a_sweep_is_made_and_an_agent_runs_it(films, tmp_path):
    written = yaml.safe_load((ROOT / "scripts/sweep/activations.yaml").read_text())
    at = written["command"].index("data=phantom")
    own = [a for a in commands.tiny_arguments(films) if not a.startswith("logger")]
    written["command"][at : at + 1] = own
    written["program"] = str(commands.TRAIN)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(written))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with SweepServer(limit=1) as server:
        account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
        env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **account}
        client = [sys.executable, "-c", CLIENT, f"local/fluoroscope/{SWEEP}"]
        subprocess.run(client, cwd=tmp_path, env=env, check=True, timeout=150)
        (folder,) = tmp_path.glob(f"outputs/sweep-{SWEEP}/*")
        assert folder.name == "relu-s1-agent0"
        assert server.dealt == {"agent0": {"head.activation": "relu", "seed": 1}}
        assert run_folder.read_json(folder / "provenance.json")["run_id"] == "agent0"
        first = server.runs[0]
        assert (first["name"], first["sweep"], first["groupName"]) == (
            *("agent0", SWEEP, "default-folder"),
        )
        assert server.store.runs["agent0"]["state"] == "finished"
        best = run_folder.read_json(folder / "result.json")["val"]["auroc"]
        assert best in [row.get("val/auroc") for row in server.history]
