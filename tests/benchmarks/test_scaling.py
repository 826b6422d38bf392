"""Points are trainings of that many processes, and compared with one."""

import os
import sys

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.fits import Block
from benchmarks.scaling import Sample, compare, conclude, measure, powers_of_two, run_member, train
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from tests.benchmarks.jobs import SMALL, job


def samples(seconds):
    return [Sample(Block(s, 0.0, s), 1) for s in seconds]


def test_efficiency_is_the_speed_over_that_of_as_many_alone():
    alone, four = np.array([1.0, 2.0, 4.0]), np.array([1.25, 2.0, 8.0])
    numbers = compare("4", {"1": samples(alone), "4": samples(four)}, images=6)
    speed_alone, speed_four = 6 / alone, 4 * 6 / four
    low, median, high = np.quantile(speed_four / (4 * speed_alone), [0.25, 0.5, 0.75])
    assert numbers["efficiency"] == pytest.approx({"median": median, "low": low, "high": high})
    assert numbers["images_s"]["median"] == np.median(speed_four)
    assert numbers["steps_ms"] == [1250, 2000, 8000]


def test_the_points_are_powers_of_two_up_to_the_limit():
    assert [powers_of_two(n) for n in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2], [1, 2, 4, 8]]


def test_every_point_is_measured_in_every_round(monkeypatch, tmp_path, capsys):
    asked = []

    def trained(cut, processes, threads, folder):
        asked.append((processes, threads))
        return Sample(Block(0.5 * processes, 0.0, 0.1), threads)

    monkeypatch.setattr(scaling, "train", trained)
    monkeypatch.setattr(scaling, "cores", lambda: 12)
    cut = job("benchmark.processes=[4,2]", "benchmark.rounds=3", f"out={tmp_path}/r.json")
    conclude(cut, measure(cut))
    assert sorted(asked) == sorted([(1, 3), (2, 3), (4, 3)] * 3)  # threads: 12 cores by 4
    kept = run_folder.read_json(tmp_path / "r.json")
    assert list(kept["arms"]) == ["1", "2", "4"]
    assert [n["efficiency"]["median"] for n in kept["arms"].values()] == [1, 0.5, 0.25]
    assert [n["images_s"]["median"] for n in kept["arms"].values()] == [10, 10, 10]
    assert kept["machine"]["threads"] == 3
    assert "10.0 (10.0-10.0)" in capsys.readouterr().out


@pytest.mark.whole
@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_of_some_processes(tmp_path, monkeypatch, processes):
    monkeypatch.setenv("SLURM_NTASKS", "5")  # not of the processes that it starts
    monkeypatch.setenv("WORLD_SIZE", "5")
    sample = train(job(), processes, 1, tmp_path)
    assert sample.block.step_s > 0
    assert sample.threads == 1
    assert os.environ["WORLD_SIZE"] == "5"


def test_a_process_that_cannot_train_prints_the_reason(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_member("1", str(tmp_path / "out.json"), *SMALL, "backbone.name=nothing")
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("fluoroscope: backbone.name: timm has no model 'nothing'")
    assert scaling.reason(f"Traceback\n  File x\n{message}\nmore") == message.strip()
    assert scaling.reason("Traceback\n  File x\nValueError: y\n\n") == "ValueError: y"
    assert scaling.reason("") == "it printed nothing"


def test_a_training_that_fails_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    message = "a training of 3 processes failed: it printed nothing"
    with pytest.raises(InputError, match=message):
        train(job(), 3, 1, tmp_path)
