"""timm's optimizers by name: their own classes, steps, and states that a resumed run reads."""

import io

import pytest
import torch
from timm.optim import Lamb, Lion, list_optimizers
from torch import nn

from fluoroscope.config.library_names import optimizers
from fluoroscope.errors import InputError
from fluoroscope.model.optimizer import Descent, parameter_groups
from fluoroscope.model.timm_optimizer import check_optimizer, make_optimizer

# The first step of these compiles for a minute, or they need a GPU or second derivatives.
LEFT_OUT = ("kron", "muon", "bnb", "fused", "adahessian")
FEW = ["sgd", "lion", "lamb", "madgrad", "adafactor", "rmsproptf", "nadamw"]
OTHERS = [n for n in list_optimizers() if n not in FEW and not any(o in n for o in LEFT_OUT)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def groups(model):
    return parameter_groups(model[:1], model[1:], 1e-2, 1e-3, weight_decay=0.1)


def train(model, optimizer, steps):
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()


def test_the_names_are_timms():
    assert optimizers() == {*list_optimizers()}


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(other, marks=pytest.mark.whole) for other in OTHERS)]
)
def test_a_resumed_optimizer_takes_the_same_steps(name):
    check_optimizer(name, {})
    model, file = network(), io.BytesIO()
    optimizer = make_optimizer(name, groups(model), 1e-2, {})
    train(model, optimizer, range(4))
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    train(model, optimizer, range(4, 7))
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed = network()
    again = make_optimizer(name, groups(resumed), 1e-2, {})
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    train(resumed, again, range(4, 7))
    for one, other in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(model[0].weight, network()[0].weight)


def test_the_default_is_pytorchs_adamw_to_the_bit():
    ours, theirs = network(), network()
    optimizer, schedule = Descent(1e-2, 1e-3, 0.1, warmup_frac=0).bind(ours[:1], ours[1:], 9, False)
    reference = torch.optim.AdamW(groups(theirs))
    assert type(optimizer) is torch.optim.AdamW
    for step in range(5):
        for group, followed in zip(reference.param_groups, optimizer.param_groups, strict=True):
            group["lr"] = followed["lr"]
        train(ours, optimizer, [step])
        train(theirs, reference, [step])
        schedule.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "args", "kind", "keys"),
    [
        ("sgd", {"momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ("sgd", {}, torch.optim.SGD, {"momentum": 0.9}),
        ("lion", {"betas": [0.8, 0.9]}, Lion, {"betas": [0.8, 0.9]}),
        ("lamb", {}, Lamb, {"betas": (0.9, 0.999)}),
        ("adamw", {"betas": [0.8, 0.9]}, torch.optim.AdamW, {"betas": (0.8, 0.9)}),
    ],
)
def test_arguments_reach_every_group(name, args, kind, keys):
    check_optimizer(name, args)
    model = network()
    descent = Descent(1e-2, 1e-3, 0.1, name=name, args=args)
    optimizer, _ = descent.bind(model[:1], model[1:], 10, False)
    assert type(optimizer) is kind
    assert {group["name"] for group in optimizer.param_groups} >= {"head/decay", "backbone/decay"}
    for group in optimizer.param_groups:
        assert {key: group[key] for key in keys} == keys
        assert group["weight_decay"] == 0.1 * group["name"].endswith("/decay")


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("adamw", {"capturable": True}, "optimizer.args.capturable: adamw does not take it"),
        ("sgd", {"momentm": 1}, "optimizer.args.momentm: sgd does not take it (its arguments: "),
        ("lion", {"momentum": 0.9}, "optimizer.args.momentum: lion does not take it"),
        ("adamw", {"lr": 1}, "optimizer.args.lr: set optimizer.lr instead"),
        ("sgd", {"weight_decay": 1}, "optimizer.args.weight_decay: set optimizer.weight_decay"),
        ("sgd", {"params": []}, "optimizer.args.params: sgd does not take it"),
        ("adamw", {"betas": [2, 0.9]}, "of adamw: Invalid beta parameter at index 0: 2"),
        ("adamw", {"betas": 0.9}, 'optimizer.args={"betas": 0.9} of adamw: '),
        ("sgd", {"momentum": -1}, "of sgd: Invalid momentum value: -1"),
        ("adahessian", {}, "needs second derivatives of the loss"),
        ("sgd", {"_target_": "os.system"}, "optimizer.args._target_: sgd does not take it"),
    ],
)
def test_what_an_optimizer_does_not_take_is_refused(name, args, told):
    with pytest.raises(InputError) as refusal:
        check_optimizer(name, args)
    assert told in str(refusal.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without a GPU")
@pytest.mark.parametrize("name", ["fusedlamb", "bnblion8bit"])
def test_an_optimizer_that_this_machine_cannot_make_is_refused(name):
    with pytest.raises(InputError, match=rf"optimizer.name={name}: CUDA required .* choose ano"):
        check_optimizer(name, {})
