import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import fits
from benchmarks.fits import Clock
from benchmarks.rounds import (
    Column,
    alternate,
    at_least,
    at_most,
    cell,
    describe_job,
    describe_target,
    ratio,
    spread,
    write_and_print,
)
from tests.benchmarks.jobs import job

ARMS = ["off", "monitor", "watch_gradients", "watch_all", "extra_pass"]


def test_each_round_has_every_arm_in_a_new_order(capsys):
    order = []
    values = alternate(ARMS, 6, 1, lambda arm: order.append(arm) or len(order), "{:d} ms".format)
    rounds = [tuple(order[i : i + 5]) for i in range(0, 30, 5)]
    assert all(sorted(r) == sorted(ARMS) for r in rounds)
    assert len(set(rounds)) > 3
    assert {arm: len(found) for arm, found in values.items()} == dict.fromkeys(ARMS, 6)
    assert [order[place - 1] for found in values.values() for place in found] == [
        arm for arm in ARMS for _ in range(6)
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[3].startswith(f"round 4/6: off {values['off'][3]} ms  monitor ")


def test_a_ratio_is_taken_within_each_round():
    rng = np.random.default_rng(5)
    over, under = rng.uniform(1, 9, (2, 7))
    low, median, high = np.quantile(over / under, [0.25, 0.5, 0.75])
    assert ratio(list(over), list(under)) == pytest.approx(
        {"median": median, "low": low, "high": high}, rel=1e-12
    )
    assert median != pytest.approx(np.median(over) / np.median(under), rel=1e-3)
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0], [1.0, 2.0])
    assert spread([5.0]) == {"median": 5, "low": 5, "high": 5}


@pytest.mark.parametrize(("value", "least", "most"), [(0.97, False, True), (0.98, True, True)])
def test_a_target_is_met_at_its_bound(value, least, most):
    assert at_least("speed", value, 0.98)["met"] is least
    assert at_most("time", value, 0.98)["met"] is most


def test_a_result_is_written_and_printed(tmp_path, capsys):
    cut = job(f"out={tmp_path}/r.json")
    arms = {"png": {"speed": spread([1.0, 1.25, 1.5]), "peak": None, "syncs": 3}}
    targets = [at_least("a / b", 0.9766, 0.98), at_most("--help", 0.1, 0.5)]
    result = describe_job("loader", cut, torch.device("cpu")) | {"targets": targets, "arms": arms}
    columns = [Column("x", "speed", ".2f"), Column("y", "peak"), Column("z", "syncs", "d")]
    write_and_print(cut, result, columns, "a note")
    assert json.loads((tmp_path / "r.json").read_text()) == result
    assert {"cpu", "cores", "device", "threads", "load"} == set(result["machine"])
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    out = capsys.readouterr().out
    assert "test_efficientnet, 48 px, batch 5, 32-true" in out
    assert [line.split() for line in out.splitlines() if " png" in line] == [
        ["png", "1.25", "(1.12-1.38)", "-", "3"]
    ]
    assert "a / b: 0.9766, target at least 0.98: missed\n" in out
    assert "--help: 0.1, target at most 0.5: met\n" in out


def test_a_missing_number_is_a_dash():
    assert [cell(None), cell(2.0), cell(3, "d")] == ["-", "2.000", "3"]
    assert describe_target(at_most("x", 1.0, 1.0)).endswith(": met")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_clock_counts_the_steps_after_the_warm_up(accumulate, monkeypatch):
    warmup, steps = 2, 4
    batches = (warmup + steps) * accumulate
    seconds = [1.0 + i * i for i in range(batches)]  # the end of each batch, all different
    reading = [0.0]
    monkeypatch.setattr(fits.time, "perf_counter", lambda: reading[0])
    monkeypatch.setattr(fits.time, "process_time", lambda: 3 * reading[0])
    counts = {"accumulate_grad_batches": accumulate, "num_training_batches": batches}
    trainer = SimpleNamespace(**counts, global_step=warmup + steps)
    module = SimpleNamespace(device=torch.device("cpu"))
    clock = Clock(warmup)
    for i in range(batches):
        reading[0] = seconds[i]
        clock.on_train_batch_end(trainer, module, None, None, i)
    reading[0] += 0.5
    clock.on_train_end(trainer, module)
    step_s = (seconds[6 * accumulate - 1] - seconds[2 * accumulate - 1]) / 4
    assert clock.block == (step_s, 0.5, 3 * step_s)


def test_the_clock_is_read_after_the_gpu_has_finished(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", calls.append)
    monkeypatch.setattr(fits.time, "perf_counter", lambda: calls.append("read") or 1.0)
    device = torch.device("cuda", 3)
    assert fits.now(device).wall_s == 1.0
    assert calls == [device, "read"]
