"""Calls that end by Ctrl-C, methods other than forward, and the gradient that optimizers use."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

import fluoroscope
from fluoroscope.errors import InputError
from tests.instrument.networks import fit, make
from tests.instrument.test_watching import Net, no_hooks


class Interrupted(Net):
    """A network whose forward is ended from outside, which tells no hook."""

    ending: type[BaseException] | None = None

    def block(self, x):
        z = super().block(x)
        if self.ending is not None:
            raise self.ending
        return z


def interrupt(model, x):
    model.ending = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        model(x)
    model.ending = None


def test_after_ctrl_c_the_watch_counts_on_as_asked():
    model, x = Interrupted(), torch.ones(3, 4)
    with fluoroscope.watch(model, every_n_calls=2) as units:
        interrupt(model, x)  # call 0 is counted as far as it went
        model(x)  # 1
        functional.relu(torch.ones(50, 7))  # of nobody
        Net()(x)
        model(x)  # 2
        units.counting = False
        model(x)
        assert not torch.overrides._get_current_function_mode_stack()
    images = units.frame()["images"].droplevel(0).to_dict()
    assert images == {"act": 6, "forward/gelu": 6}
    assert not units.unseen
    assert no_hooks(model)


def test_a_watch_that_ends_after_ctrl_c_leaves_nothing_and_no_other_mode_is_ended():
    class Other(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    model = Interrupted()
    units = fluoroscope.watch(model)
    interrupt(model, torch.ones(3, 4))
    with Other() as other:
        units.close()
        assert torch.overrides._get_current_function_mode_stack() == [other]
    assert no_hooks(model)


def test_what_runs_between_ctrl_c_and_the_next_call_is_not_counted():
    model, x = Interrupted(), torch.ones(3, 4)
    with fluoroscope.watch(model) as units:
        interrupt(model, x)
        functional.gelu(torch.ones(50, 5))
        Net()(x)
    assert units.frame()["images"].tolist() == [3, 3]
    assert not units.unseen


def test_a_thread_that_died_in_a_call_does_not_block_the_others():
    model, x = Interrupted(), torch.ones(3, 4)
    with fluoroscope.watch(model) as units:
        thread = threading.Thread(target=interrupt, args=(model, x))
        thread.start()
        thread.join()
        model(x)
    assert units.frame()["images"].tolist() == [6, 6]
    assert not units.unseen


class Parts(nn.Module):
    """An activation that several layers share; `features` calls its parts one by one."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.drop, self.act, self.slopes = nn.Dropout(0.0), nn.ReLU(), nn.PReLU(6)

    def features(self, x):
        for layer in (self.first, self.second):
            x = self.drop(self.slopes(self.act(layer(x))))
        return self.act(self.third(x))

    def forward(self, x):
        return self.features(x)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_calls_of_another_method_have_the_names_and_numbers_of_forward(every):
    torch.manual_seed(3)
    model, frames = Parts(), []
    for run in (model, model.features):
        torch.manual_seed(4)
        with fluoroscope.watch(model, every_n_calls=every) as units:
            for size in (5, 2, 4, 3):
                run(torch.randn(size, 4)).sum().backward()
            model.eval()
            run(torch.randn(3, 4))
            model.train()
        frames.append(units.frame())
    names = ["act", "slopes", "act#2", "slopes#2", "act#3"]
    assert frames[0].loc["train"].index.tolist() == names
    assert frames[0].equals(frames[1])


def test_a_part_that_is_called_again_and_again_keeps_its_name():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
            self.d = nn.Sequential(nn.Linear(6, 5), nn.Tanh())

    model = Gan()
    with fluoroscope.watch(model, every_n_calls=2) as units:
        for _ in range(4):
            fake = model.g(torch.randn(3, 4))
            model.d(fake.detach())
            model.d(fake)
    assert units.frame()["images"].droplevel(0).to_dict() == {"g.1": 6, "d.1": 12}


def squares(model):
    return float(sum(p.grad.double().square().sum() for p in model.parameters()))


def test_the_gradient_of_a_closure_is_the_one_that_it_computes():
    """LBFGS evaluates it several times per step; each of them is used."""
    torch.manual_seed(3)
    model, x, used = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), torch.randn(9, 4), []
    plain = copy.deepcopy(model)

    def closure(network, optimizer, kept):
        optimizer.zero_grad()
        loss = network(x).square().mean()
        loss.backward()
        kept.append(squares(network))
        return loss

    for network, kept in ((model, []), (plain, used)):
        optimizer = torch.optim.LBFGS(network.parameters(), max_iter=4)
        with fluoroscope.watch(model) as units:
            for _ in range(2):
                optimizer.step(lambda n=network, o=optimizer, k=kept: closure(n, o, k))
            if network is model:
                value = units.values()["units/train/grad_l2"]
    assert len(used) > 4
    assert value == pytest.approx(np.sqrt(np.mean(used)), rel=1e-6)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_gradient_counts_at_the_steps_whose_call_was_counted():
    model, _, batch = make("mlp")
    plain, used = copy.deepcopy(model), []
    with fluoroscope.watch(model, every_n_calls=2) as units:
        fit(model, batch)

    def keep(optimizer, *_):
        used.append(squares(plain))

    handle = register_optimizer_step_pre_hook(keep)
    fit(plain, batch)
    handle.remove()
    assert len(used) == 3
    value = units.values()["units/train/grad_l2"]
    assert value == pytest.approx(np.sqrt((used[0] + used[2]) / 2), rel=1e-9)


def test_a_gradient_that_is_not_finite_is_left_out():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    optimizer, x = torch.optim.SGD(model.parameters(), 0.0), torch.randn(5, 4)
    weights = copy.deepcopy(model.state_dict())

    def step(factor):
        optimizer.zero_grad()
        (factor * model(x).square().mean()).backward()
        optimizer.step()
        model.load_state_dict(weights)

    with fluoroscope.watch(model) as units:
        step(float("nan"))
        assert np.isnan(units.frame()["grad_l2"]).all()
        assert np.isnan(units.frame()["grad_dormant_frac"]).all()
        assert "units/train/grad_l2" not in units.values()
        step(1.0)
        values = units.values()
    with fluoroscope.watch(model) as once:
        step(1.0)
    for key in ("units/train/grad_l2", "units/train/1/grad_l2", "units/train/1/grad_dormant_frac"):
        assert values[key] == pytest.approx(once.values()[key], rel=1e-9)


def test_the_scale_of_the_loss_is_removed_where_the_optimizer_removes_it():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    x, found = torch.randn(5, 4), []
    for fused in (False, True):
        optimizer = torch.optim.Adam(model.parameters(), 0.0, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with fluoroscope.watch(model) as units:
            optimizer.zero_grad()
            scaler.scale(model(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append(units.values()["units/train/grad_l2"])
    optimizer.zero_grad()
    model(x).square().mean().backward()
    assert found == pytest.approx([squares(model) ** 0.5] * 2, rel=1e-5)


def test_a_history_of_windows_has_an_end():
    from fluoroscope.instrument.reading import KEPT

    model = Net()
    with fluoroscope.watch(model, "act") as units:
        for _ in range(KEPT + 9):
            model(torch.ones(2, 4))
            units.reset()
        model(torch.ones(2, 4))
    axes = units.plot("act").axes
    assert axes[0].images[0].get_array().shape == (7, KEPT + 1)
    assert axes[0].get_xlabel() == "window"
    assert "samples with an open gate" in axes[1].get_ylabel()


def test_a_layer_that_no_call_reached_is_named_with_what_was_called():
    model = Net()
    with fluoroscope.watch(model, "first/relu") as units:
        model(torch.ones(3, 4))
        with pytest.raises(InputError) as refusal:
            units.table()
    assert str(refusal.value) == (
        "no call of Net reached a layer of layers=['first/relu']; the closest names that it "
        "called: forward/gelu, act"
    )
