"""The measurement on a GPU, rehearsed at toy size; see `tests/gpu` for what is true there."""

import json

import pytest
import torch

from benchmarks import gpu, gpu_parts
from benchmarks.rounds import at_most
from fluoroscope.errors import InputError
from tests.support import gpu_worker


def test_a_rehearsal_measures_and_writes_each_part(tmp_path, capsys):
    options = gpu.Options(300, "cpu", tmp_path / "out", ("heads", "forecast"))
    result = gpu.run(options)
    assert [name for name, part in result["parts"].items() if "problem" in part] == []
    kept = json.loads((tmp_path / "out/gpu.json").read_text())
    assert list(kept["parts"]) == ["heads", "forecast"]
    heads = kept["parts"]["heads"]["arms"]["60 images"]
    assert (heads["heads"], heads["epochs"]) == (6, 2)  # relu, gelu and identity, two seeds
    page = (tmp_path / "out/gpu.md").read_text()
    for part in kept["parts"].values():
        assert f"### {part['about'].capitalize()}" in page
    assert "| forecast |" in page
    assert "heads: done; " in capsys.readouterr().out


@pytest.mark.whole
def test_every_part_is_rehearsed(tmp_path):
    result = gpu.run(gpu.Options(3000, "cpu", tmp_path, ()))
    assert [name for name, part in result["parts"].items() if "problem" in part] == []
    truth = result["parts"]["truth"]
    assert truth["targets"] == [at_most("tests that fail", 0, 0)]
    assert result["parts"]["step-4-compiled"]["arms"].keys() >= {"bare", "timm", "trainer"}
    assert result["parts"]["epochs"]["arms"].keys() == {"in memory", "from files"}
    assert result["parts"]["cold"]["arms"]["total"]["seconds"] > 1


def test_a_part_that_hangs_or_dies_loses_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_work", gpu_worker.obey)
    result = gpu.run(gpu.Options(3000, "cpu", tmp_path))
    problems = {name: part.get("problem") for name, part in result["parts"].items()}
    assert problems.pop("late").startswith("not measured: ")
    assert problems == {
        "good": None,
        "slow": "stopped at its time limit",
        "crash": "its process ended with exit code 7",
        "after": None,
    }
    assert "good: seconds: 2, target at most 1: missed; " in capsys.readouterr().out
    page = (tmp_path / "gpu.md").read_text()
    assert "| arm | seconds |\n| --- | --- |\n| one | 2.0 (1.0-3.0) |\n" in page
    assert "a note" in page
    assert "seconds: 2, target at most 1: missed" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["budget=4"], "key must be one of .*'budget' .did you mean 'budget_s'"),
        (["budget_s=soon"], "budget_s must be a number above 0; got 'soon'"),
        (["device=gpu"], "device must be one of cpu, cuda"),
    ],
)
def test_a_bad_option_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        gpu.read_options(words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no CUDA device here; device=cpu rehearses"):
        gpu.run(gpu.Options(10, "cuda", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_parts_are_in_order_of_importance(tmp_path):
    names = [part.name for part in gpu_parts.parts(gpu_parts.Place("cuda", tmp_path))]
    assert names[:4] == ["truth", "step-128", "heads", "watching"]
    assert {"step-64", "step-256", "step-64-compiled", "step-256-compiled"} < set(names)
    limits = [part.least_s for part in gpu_parts.parts(gpu_parts.Place("cuda", tmp_path))]
    assert sum(limits[:7]) < 480
