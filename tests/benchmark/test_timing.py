from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fluoroscope.benchmark import timing
from fluoroscope.benchmark.timing import (
    Block,
    Clock,
    epoch_ratio,
    extra_end_ms,
    spread,
    step_cpu_ratio,
    step_ratio,
)

OFF = [Block(2.0, 1.0, 8.0), Block(4.0, 3.0, 2.0), Block(5.0, 2.0, 4.0)]
ARM = [Block(3.0, 1.5, 8.0), Block(4.0, 7.0, 8.0), Block(10.0, 2.25, 6.0)]


def test_ratios_are_of_the_same_round():
    # By hand: 1.5, 1, 2 a step. The ratio of the medians would be 1.
    assert step_ratio(ARM, OFF) == (1.5, 1.25, 1.75)
    assert step_cpu_ratio(ARM, OFF) == (1.5, 1.25, 2.75)  # of 1, 4, 1.5


def test_an_epoch_has_so_many_steps_and_one_end():
    by_hand = sorted([31.5 / 21, 47 / 43, 102.25 / 52])  # (10 * 3 + 1.5) / (10 * 2 + 1), ...
    ratio = epoch_ratio(ARM, OFF, 10)
    assert ratio.median == pytest.approx(by_hand[1])
    assert ratio.low == pytest.approx((by_hand[0] + by_hand[1]) / 2)
    assert ratio.high == pytest.approx((by_hand[1] + by_hand[2]) / 2)


def test_the_end_of_an_epoch_is_compared_by_its_difference():
    # 500, 4000 and 250 ms.
    assert extra_end_ms(ARM, OFF) == (500, 375, 2250)


def test_spread_is_that_of_numpys_quantiles():
    values = [3.0, 9.0, 4.0, 1.0, 7.0, 2.0, 8.0]
    assert spread(values) == tuple(np.quantile(values, [0.5, 0.25, 0.75]))
    assert spread([5.0]) == (5, 5, 5)


def test_unequal_numbers_of_rounds_are_no_pairs():
    with pytest.raises(ValueError, match="shorter"):
        step_ratio(ARM, OFF[:2])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_clock_counts_what_follows_the_warm_up(accumulate, monkeypatch):
    warmup, steps = 2, 4
    batches = (warmup + steps) * accumulate
    seconds = [
        1.0 + i * i for i in range(batches)
    ]  # the end of each batch, none as long as another
    reading = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: reading[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: 3 * reading[0])
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


def test_a_gpu_is_waited_for_before_the_clock_is_read(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "synchronize", told.append)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: told.append("read") or 1.0)
    device = torch.device("cuda", 3)
    assert timing.now(device).wall_s == 1.0
    assert told == [device, "read"]
