"""The stages add up, and the commands are those of a user."""

import json

import pytest

from benchmarks import startup
from benchmarks.first_step import STAGES
from benchmarks.options import read_job
from benchmarks.startup import Commands, Sample, compare, conclude, measure, stages
from fluoroscope.errors import InputError
from tests.support.commands import tiny_arguments

ARMS = ["help", "refused_key", "refused_value", "first_step", "first_step_new_data"]


def test_stages_follow_each_other_without_a_gap():
    ends = [100.5, 101.0, 106.0, 106.25, 107.0, 109.0, 109.5, 109.5, 112.0]
    sample = stages(100.0, dict(zip(STAGES, ends, strict=True)))
    assert sample.total_s == 12.0
    assert list(sample.stages_s) == list(STAGES)
    assert list(sample.stages_s.values()) == [0.5, 0.5, 5.0, 0.25, 0.75, 2.0, 0.5, 0.0, 2.5]


def test_an_arm_is_the_spread_of_its_runs():
    numbers = compare([Sample(s, {"python": s / 4, "imports": s / 2}) for s in (4.0, 1.0, 2.0)])
    assert numbers["seconds"] == {"median": 2.0, "low": 1.5, "high": 3.0}
    assert numbers["stages_s"]["python"] == {"median": 0.5, "low": 0.375, "high": 0.75}


@pytest.fixture(scope="module")
def measured(tmp_path_factory, films):
    """A real first step and the real command line of the rest."""
    overrides = tiny_arguments(films, "run.dir=elsewhere")
    return Commands(tmp_path_factory.mktemp("startup"), overrides)


@pytest.mark.whole
def test_the_first_step_is_reached_and_the_run_ends_there(measured):
    sample = measured.sample("first_step")
    assert list(sample.stages_s) == list(STAGES)
    assert all(seconds >= 0 for seconds in sample.stages_s.values())
    assert sample.stages_s["imports"] > 0.2
    assert sum(sample.stages_s.values()) == pytest.approx(sample.total_s)
    [run] = measured.folder.glob("run-*")
    assert (run / "config.yaml").exists()
    assert not (run / "result.json").exists()
    assert list((measured.folder / "cache").rglob("*.json"))  # the images are checked


def test_a_help_and_a_refusal_take_their_time(measured):
    assert measured.sample("help").total_s > 0
    refused = measured.sample("refused_key")
    assert refused.total_s > 0
    assert refused.stages_s == {}


def test_a_command_with_another_exit_code_is_reported(measured, monkeypatch):
    monkeypatch.setitem(startup.REFUSED, "refused_key", "head.width=-x")
    message = r"train.py .* failed: fluoroscope: head.width must be a whole number"
    monkeypatch.setattr(startup, "BAD_INPUT", 0)
    with pytest.raises(InputError, match=message):
        measured.sample("refused_key")


def test_the_measured_run_is_the_users(monkeypatch, tmp_path, capsys):
    commands = []

    def run(self, command, code, **env):
        commands.append((command, code, env))
        if "benchmarks.first_step" in command:
            at = {stage: 1e9 + i for i, stage in enumerate(STAGES)}
            with open(command[2], "w") as file:
                json.dump(at, file)
        return 0.25 if "--help" in command else 4.0

    monkeypatch.setattr(Commands, "_run", run)
    monkeypatch.setattr(startup.time, "time", lambda: 1e9 - 2.0)
    own = ["benchmark.rounds=3", f"out={tmp_path}/r.json"]
    cut = read_job(["data=nih14", "data.root=x", *own, "run.dir=here", "seed=7"])
    conclude(cut, measure(cut))
    result = json.loads((tmp_path / "r.json").read_text())
    assert list(result["arms"]) == ARMS
    assert result["arms"]["first_step"]["seconds"]["median"] == 10.0
    assert result["arms"]["first_step"]["stages_s"]["python"]["median"] == 2.0
    assert result["targets"] == [
        {"what": "--help, seconds", "value": 0.25, "at_most": 0.5, "met": True}
    ]
    trainings = [command[4:] for command, _, env in commands if env]
    assert len(trainings) == 1 + 2 * 3  # the first is not timed
    for overrides_of in trainings:
        assert overrides_of[:2] == ["data=nih14", "data.root=x"]
        assert overrides_of[2:4] == ["seed=7", "logger.mode=offline"]
        assert [o.startswith("run.dir=") for o in overrides_of[4:]] == [True]
    assert len({command[-1] for command in trainings}) == len(trainings)
    caches = [env["XDG_CACHE_HOME"] for _, _, env in commands if env]
    assert sorted(map(caches.count, set(caches))) == [1, 1, 1, 4]  # three new collections
    codes = {tuple(command[-1:]): code for command, code, _ in commands}
    assert codes[("head.activatoin=relu",)] == codes[("head.activation=rleu",)] == 2
    out = capsys.readouterr().out
    assert "first_step           10.00 (10.00-10.00)" in out
    assert "--help, seconds: 0.25, target at most 0.5: met" in out


def test_a_logger_of_the_users_choice_stays(tmp_path):
    assert Commands(tmp_path, ["logger=csv"]).overrides == ["logger=csv"]
    assert Commands(tmp_path, []).overrides == ["logger.mode=offline"]
