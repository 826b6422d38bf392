import math

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.optim import SGD, AdamW

from fluoroscope.errors import InputError
from fluoroscope.model.optimizer import parameter_groups, warmup_cosine

LR, BACKBONE_LR, DECAY = 3e-3, 1e-4, 0.05


class Wrapped(nn.Module):
    """A backbone around a timm network, without parameters of its own."""

    def __init__(self, network):
        super().__init__()
        self.network = network


@pytest.fixture
def network():
    return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)


@pytest.fixture
def head():
    """Weights 2 x 2-d, 1-d: 2 biases, batch norm's two, the learned slope."""
    return nn.Sequential(nn.Linear(17, 5), nn.PReLU(5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def ids(parameters):
    return {id(parameter) for parameter in parameters}


def assert_each_once(groups, *modules):
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == ids(p for m in modules for p in m.parameters() if p.requires_grad)
    assert all(group["params"] for group in groups)
    assert len({group["name"] for group in groups}) == len(groups)


def test_groups_hold_every_parameter_once_with_its_rate_and_decay(network, head):
    groups = parameter_groups(network, head, LR, BACKBONE_LR, weight_decay=DECAY)
    assert_each_once(groups, network, head)
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        "head/decay": (LR, DECAY),
        "head/no_decay": (LR, 0),
        "backbone/decay": (BACKBONE_LR, DECAY),
        "backbone/no_decay": (BACKBONE_LR, 0),
    }
    by_name = {group["name"]: group["params"] for group in groups}
    assert ids(by_name["head/decay"]) == {id(head[0].weight), id(head[3].weight)}
    assert id(head[1].weight) in ids(by_name["head/no_decay"])  # the slope
    assert len(by_name["head/no_decay"]) == 5
    for name, params in by_name.items():
        assert all((p.ndim == 1) == name.endswith("no_decay") for p in params)
    expected = param_groups_weight_decay(network, DECAY)
    assert [ids(g["params"]) for g in expected] == [ids(g["params"]) for g in groups[2:]]


def test_weight_decay_reaches_only_the_decaying_groups(network, head):
    """One AdamW step with zero gradients: p (1 - lr decay), or nothing."""
    optimizer = AdamW(parameter_groups(network, head, LR, BACKBONE_LR, weight_decay=DECAY))
    before = {p: p.detach().clone() for m in (network, head) for p in m.parameters()}
    for p in before:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    own = ids(head.parameters())
    for p, old in before.items():
        lr = LR if id(p) in own else BACKBONE_LR
        torch.testing.assert_close(p.detach(), old * (1 - lr * DECAY * (p.ndim > 1)))


@pytest.mark.parametrize("wrap", [lambda m: m, Wrapped, torch.compile])
def test_layer_decay_is_timms(network, head, wrap):
    groups = parameter_groups(
        wrap(network), head, LR, BACKBONE_LR, weight_decay=DECAY, layer_decay=0.7
    )
    assert_each_once(groups, network, head)
    expected = {
        id(p): (BACKBONE_LR * group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(network, DECAY, layer_decay=0.7)
        for p in group["params"]
    }
    backbone = [group for group in groups if group["name"].startswith("backbone/")]
    actual = {id(p): (g["lr"], g["weight_decay"]) for g in backbone for p in g["params"]}
    assert actual == expected
    assert all(
        "lr_scale" not in group for group in groups
    )  # a scheduler of timm's would reapply it
    by_name = {group["name"]: group for group in backbone}
    assert id(network.conv_head.weight) in ids(by_name["backbone/layer_00/decay"]["params"])
    stem = next(g for g in backbone if id(network.conv_stem.weight) in ids(g["params"]))
    depth = int(stem["name"].split("/")[1].removeprefix("layer_"))
    assert depth == len({group["lr"] for group in backbone}) - 1 > 10
    assert stem["lr"] == pytest.approx(BACKBONE_LR * 0.7**depth)


def test_layer_decay_without_weight_decay_keeps_names_apart(network, head):
    groups = parameter_groups(network, head, LR, BACKBONE_LR, weight_decay=0.0, layer_decay=0.7)
    assert_each_once(groups, network, head)
    assert all(g["weight_decay"] == 0 and g["name"].endswith("/no_decay") for g in groups)


@pytest.mark.parametrize("layer_decay", [None, 0.7])
def test_frozen_backbone_leaves_only_the_head(network, head, layer_decay):
    network.requires_grad_(False)
    groups = parameter_groups(
        network, head, LR, BACKBONE_LR, weight_decay=DECAY, layer_decay=layer_decay
    )
    assert {group["name"] for group in groups} == {"head/decay", "head/no_decay"}
    assert_each_once(groups, network, head)


@pytest.mark.parametrize("layer_decay", [None, 0.7])
def test_position_embedding_does_not_decay(head, layer_decay):
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=2)
    groups = parameter_groups(
        Wrapped(network), head, LR, BACKBONE_LR, weight_decay=DECAY, layer_decay=layer_decay
    )
    assert_each_once(groups, network, head)
    fixed = ids(p for group in groups if group["weight_decay"] == 0 for p in group["params"])
    assert {id(network.pos_embed), id(network.cls_token)} <= fixed
    assert id(network.blocks[0].mlp.fc1.weight) not in fixed


def test_layer_decay_refuses_what_it_cannot_do(network, head):
    for layer_decay in (0.0, 1.0, -0.5):
        with pytest.raises(InputError, match=r"optimizer.layer_decay must be in \(0, 1\)"):
            parameter_groups(network, head, LR, LR, weight_decay=0, layer_decay=layer_decay)
    with pytest.raises(InputError, match="Linear cannot"):
        parameter_groups(nn.Linear(2, 3), head, LR, LR, weight_decay=0, layer_decay=0.5)
    wrapped = Wrapped(network)
    wrapped.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="Wrapped adds parameters"):
        parameter_groups(wrapped, head, LR, LR, weight_decay=0)


def rates(warmup_steps, total_steps, steps):
    """The rates of two groups, of base 0.2 and 1, that each optimizer step uses."""
    optimizer = SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.2, 1.0)])
    schedule = warmup_cosine(optimizer, warmup_steps, total_steps)
    used = []
    for _ in range(steps):
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return used


def test_schedule_is_the_closed_form():
    used = rates(10, 90, steps=100)
    for t, (small, large) in enumerate(used):
        if t < 10:
            expected = (t + 1) / 10
        elif t < 90:
            expected = math.cos(math.pi * (t - 10) / 160) ** 2
        else:
            expected = 0.0
        assert large == pytest.approx(expected, abs=1e-12)
        assert small == pytest.approx(0.2 * expected, abs=1e-12)
    assert [used[t][1] for t in (0, 9, 10, 50, 90, 99)] == pytest.approx(
        [0.1, 1, 1, 0.5, 0, 0], abs=1e-12
    )


def test_schedule_without_warm_up_starts_at_the_full_rate():
    assert [large for _, large in rates(0, 4, steps=6)] == pytest.approx(
        [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0, 0], abs=1e-12
    )


def test_schedule_resumes_from_its_state():
    def make():
        optimizer = SGD([nn.Parameter(torch.ones(1))], lr=1.0)
        return optimizer, warmup_cosine(optimizer, 3, 20)

    optimizer, schedule = make()
    for _ in range(7):
        optimizer.step()
        schedule.step()
    resumed, resumed_schedule = make()
    resumed.load_state_dict(optimizer.state_dict())
    resumed_schedule.load_state_dict(schedule.state_dict())
    resumed.step()
    resumed_schedule.step()
    expected = math.cos(math.pi * (8 - 3) / 34) ** 2
    assert resumed.param_groups[0]["lr"] == pytest.approx(expected)


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(10, 10), (11, 10), (-1, 10), (0, 0)])
def test_warm_up_must_be_shorter_than_the_run(warmup_steps, total_steps):
    with pytest.raises(InputError, match="must be shorter than the run"):
        rates(warmup_steps, total_steps, steps=1)
