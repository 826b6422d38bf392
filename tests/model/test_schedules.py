"""Learning rates other than the cosine: closed forms, and PyTorch's own one-cycle schedule."""

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR

from fluoroscope.model.schedules import make_schedule

LR = (3e-3, 1e-4)


def optimizer():
    return torch.optim.SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in LR])


def rates(schedule, stepped, steps):
    used = []
    for _ in range(steps):
        used.append([group["lr"] for group in stepped.param_groups])
        stepped.step()
        schedule.step()
    return used


def ours(steps, warmup_frac, name, **keys):
    stepped = optimizer()
    return rates(make_schedule(stepped, warmup_frac, steps, name, **keys), stepped, steps)


@pytest.mark.parametrize("steps", [2, 3, 7, 50, 331])
@pytest.mark.parametrize("warmup_frac", [0.0, 0.07, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("div", "final"), [(25.0, 1e4), (3.0, 7.0), (1.0, 1.0)])
def test_one_cycle_is_that_of_pytorch(steps, warmup_frac, div, final):
    if warmup_frac * steps == 1:  # PyTorch divides by zero
        return
    stepped = optimizer()
    keys = {"pct_start": warmup_frac, "div_factor": div, "final_div_factor": final}
    theirs = OneCycleLR(stepped, list(LR), total_steps=steps, cycle_momentum=False, **keys)
    expected = rates(theirs, stepped, steps)
    found = ours(steps, warmup_frac, "one_cycle", div_factor=div, final_div_factor=final)
    assert torch.tensor(found).allclose(torch.tensor(expected), rtol=1e-6, atol=1e-12)


def test_one_cycle_whose_top_is_the_first_step_only_falls():
    found = [head for head, _ in ours(10, 0.1, "one_cycle", div_factor=2.0, final_div_factor=4.0)]
    assert found[0] == pytest.approx(LR[0])
    assert found[-1] == pytest.approx(LR[0] / 8)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(("warmup_frac", "rising"), [(0.0, 0), (0.2, 4), (0.99, 19)])
def test_constant_rises_and_stays(warmup_frac, rising):
    expected = [[lr * min(1.0, (t + 1) / max(rising, 1)) for lr in LR] for t in range(20)]
    assert ours(20, warmup_frac, "constant") == expected


def test_step_drops_at_shares_of_the_run():
    stepped = optimizer()
    expected = rates(MultiStepLR(stepped, [30, 55, 75], gamma=0.3), stepped, 100)
    found = ours(100, 0.0, "step", milestones=[0.3, 0.55, 0.75], gamma=0.3)
    assert torch.tensor(found).allclose(torch.tensor(expected), rtol=1e-6)
    late = ours(100, 0.4, "step", milestones=[0.3, 0.55, 0.75], gamma=0.3)
    assert late[40:] == found[40:]
    assert late[9] == pytest.approx([lr * 0.25 for lr in LR])
