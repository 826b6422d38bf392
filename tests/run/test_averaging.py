import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from fluoroscope import build
from fluoroscope.run.averaging import reached_decay, warmed_up
from fluoroscope.run.training_check import check_training
from tests.support.films import tiny_config


def averaged(decay, steps):
    """The average of a weight that is 0, 1, 2, ..., by the library, and a counter."""
    model = torch.nn.BatchNorm1d(1).double()
    average = AveragedModel(model, multi_avg_fn=warmed_up(decay), use_buffers=True)
    for step in range(steps):
        torch.nn.init.constant_(model.weight, float(step))
        model.num_batches_tracked += 1
        average.update_parameters(model)
    return average.module


@pytest.mark.parametrize(("decay", "steps"), [(0.9, 200), (0.999, 50), (0.5, 3)])
def test_it_is_the_recursion(decay, steps):
    value = 0.0
    for step in range(1, steps):
        share = 1 - min(decay, (1 + step) / (10 + step))
        value += share * (step - value)
    found = averaged(decay, steps)
    assert found.weight.item() == pytest.approx(value, rel=1e-12)
    assert found.num_batches_tracked == steps


def test_a_constant_stays_to_the_last_bit():
    model = torch.nn.Linear(7, 7)
    before = model.weight.detach().clone()
    average = AveragedModel(model, multi_avg_fn=warmed_up(0.999))
    for _ in range(100):
        average.update_parameters(model)
    assert torch.equal(average.module.weight, before)


def test_a_short_run_is_averaged_over_its_own_steps():
    """Without the warm-up the average of 40 steps at 0.999 would be 0.77, nearly the start."""
    assert averaged(0.999, 40).weight.item() > 30


@pytest.mark.parametrize(("decay", "told"), [(0.999, True), (0.6, False)])
def test_a_run_too_short_for_the_decay_is_told(films, recwarn, decay, told):
    cfg = tiny_config(films, "head.norm=layer", f"optimizer.ema_decay={decay}")
    check_training(cfg, build.build_data(cfg, build.build_studies(cfg)), 1)
    lines = [str(warning.message) for warning in recwarn]
    wanted = "is not reached in this run of 20 steps: its warm-up ends at 0.700, an average over"
    assert any(wanted in line for line in lines) == told


def test_the_decay_that_is_reached():
    assert reached_decay(0.999, 20) == 0.7
    assert reached_decay(0.5, 20) == 0.5
