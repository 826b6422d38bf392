"""What is found to be an activation, and what is left alone."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fluoroscope
from fluoroscope.diagnostics.layers import ELEMENTWISE
from fluoroscope.instrument.discovery import FUNCTIONS, NAMES


class Swish(nn.Module):
    """A user's own, with an activation as its part."""

    def __init__(self):
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        return x * self.sigmoid(x)


class InPlace(nn.Module):
    def forward(self, x):
        return x.mul_(torch.sigmoid(x))


class Snake(nn.Module):
    """A slope per channel of a map."""

    def __init__(self, channels):
        super().__init__()
        self.alpha = nn.Parameter(torch.linspace(0.5, 2, channels).view(1, -1, 1, 1))

    def forward(self, x):
        return x + torch.sin(self.alpha * x) ** 2 / self.alpha


class OwnRelu(nn.ReLU):
    def forward(self, x):
        return functional.relu(x) * 2


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


class OwnNode(nn.Module):
    def forward(self, x):
        return Step.apply(x)


class DropHalf(nn.Module):
    """Random in training, the identity in evaluation."""

    def forward(self, x):
        return x * (torch.rand_like(x) > 0.5) * 2 if self.training else x


class NoisyRelu(nn.Module):
    def forward(self, x):
        return functional.relu(x + torch.randn_like(x)) if self.training else functional.relu(x)


class NumpyNoise(nn.Module):
    def forward(self, x):
        return functional.relu(x) + random.random() + float(np.random.rand())


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x):
        return x * self.gamma


class Norm(nn.Module):
    def forward(self, x):
        return functional.relu(x) / x.square().mean((1, 2, 3), keepdim=True).sqrt()


class Average(nn.Module):
    """Elementwise, but it keeps statistics."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return functional.relu(x)


class Loud(nn.Module):
    def forward(self, x):
        raise_if = x.shape[0] == 8  # the trial
        if raise_if:
            raise SystemError("not now")
        return x


def network(part):
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(2, 5, 3), part, nn.Flatten(), nn.Linear(5 * 7 * 6, 3))


def step(model, size=4):
    torch.manual_seed(4)
    model(torch.randn(size, 2, 9, 8)).square().sum().backward()


FOUND = [Swish, InPlace, lambda: Snake(5), OwnRelu, OwnNode, *ELEMENTWISE]
LEFT = [
    DropHalf,
    NoisyRelu,
    NumpyNoise,
    lambda: Scale(5),
    Norm,
    Average,
    Loud,
    nn.Identity,
    nn.Dropout,
]


@pytest.mark.parametrize("make", FOUND)
def test_elementwise_modules_are_watched_with_the_gradient_of_autograd(make):
    model = network(nn.Threshold(0.1, 20.0) if make is nn.Threshold else make())
    torch.manual_seed(6)  # whatever the user does next
    state = torch.get_rng_state()
    with fluoroscope.watch(model) as units:
        step(model)
    (row,) = units.frame().reset_index().to_dict("records")
    assert (row["layer"], row["units"], row["images"]) == ("1", 5, 4)
    assert not torch.equal(torch.get_rng_state(), state)  # of `step` alone
    twin, kept = copy.deepcopy(model).double(), []
    twin.zero_grad()

    def keep(module, inputs):
        z = inputs[0].clone()
        z.retain_grad()
        kept.append(z)
        return z.clone()

    twin[1].register_forward_pre_hook(keep)
    torch.manual_seed(4)
    twin(torch.randn(4, 2, 9, 8).double()).square().sum().backward()
    (z,) = kept
    assert row["grad_l2"] == pytest.approx(float(z.grad.norm()), rel=1e-4)
    score = z.grad.abs().sum((0, 2, 3))
    score = (score / score.mean()).numpy()
    assert units.channels()["grad_score"].to_numpy() == pytest.approx(score, rel=1e-3)


@pytest.mark.parametrize("make", LEFT)
def test_what_is_random_affine_or_not_elementwise_is_left_alone(make):
    first = network(make())
    states = []
    for model, watched in ((copy.deepcopy(first), True), (first, False)):
        torch.manual_seed(7), random.seed(7), np.random.seed(7)
        if watched:
            with fluoroscope.watch(nn.Sequential(model, nn.ReLU())) as units:
                step(model)
                units._named(torch.zeros(1, 2, 9, 8))
        else:
            step(model)
            nn.Sequential(model, nn.ReLU())(torch.zeros(1, 2, 9, 8))
        after = torch.get_rng_state().tolist(), random.random(), float(np.random.rand())
        states.append((after, {k: v.tolist() for k, v in model.state_dict().items()}))
    assert states[0] == states[1]
    assert [layer for _, layer in units.frame().index if "/" not in layer] == ["1"]


WAYS = {
    "relu": (functional.relu, nn.ReLU()),
    "relu again": (lambda z: functional.relu(input=z, inplace=True), nn.ReLU()),
    "relu of torch": (torch.relu, nn.ReLU()),
    "relu in place": (lambda z: z.relu_(), nn.ReLU()),
    "relu of a tensor": (lambda z: z.relu(), nn.ReLU()),
    "gelu": (lambda z: functional.gelu(z, approximate="tanh"), nn.GELU("tanh")),
    "silu": (functional.silu, nn.SiLU()),
    "tanh": (torch.tanh, nn.Tanh()),
    "leaky_relu": (lambda z: functional.leaky_relu(z, 0.3), nn.LeakyReLU(0.3)),
    "prelu": (lambda z: functional.prelu(z, torch.full((5,), 0.2)), nn.PReLU(5, 0.2)),
    "threshold": (lambda z: functional.threshold(z, 0.1, 0.3), nn.Threshold(0.1, 0.3)),
    "softplus": (lambda z: functional.softplus(z, beta=3), nn.Softplus(3)),
}


class Calls(nn.Module):
    """Calls a function between two layers, twice."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3), nn.Linear(5, 3)
        self.function = function

    def forward(self, x):
        z = self.function(self.first(x)).mean((2, 3))
        return self.second(self.function(z.sub(0.2)))


@pytest.mark.parametrize("way", WAYS)
def test_a_function_counts_as_its_module(way):
    function, module = WAYS[way]
    frames = []
    for act in (function, module):
        torch.manual_seed(2)
        model = Calls(act)
        with fluoroscope.watch(model) as units:
            step(model)
        assert not units.unseen
        frames.append(units.frame())
    kind = way.split()[0]
    assert frames[0].index.tolist() == [
        ("train", f"forward/{kind}"),
        ("train", f"forward/{kind}#2"),
    ]
    assert frames[1].index.tolist() == [("train", "function"), ("train", "function#2")]
    np.testing.assert_allclose(frames[0].to_numpy(), frames[1].to_numpy(), rtol=1e-6)
    assert frames[0]["units"].tolist() == [5, 5]
    assert frames[0]["grad_l2"].gt(0).all()


def test_every_function_of_the_table_is_one_of_pytorch():
    assert set(FUNCTIONS.values()) == set(NAMES)
    assert torch.sigmoid not in FUNCTIONS
    assert functional.rrelu not in FUNCTIONS


def test_what_is_not_seen_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.noise, self.act = nn.LSTM(5, 5), nn.RReLU(), nn.ReLU()
            self.scripted = torch.jit.script(nn.ReLU())

        def forward(self, x):
            z = self.lstm(x)[0]
            return self.scripted(self.act(self.noise(z * torch.sigmoid(z))))

    model = Odd()
    with fluoroscope.watch(model) as units:
        model(torch.randn(3, 2, 5))
    assert [layer for _, layer in units.frame().index] == ["act"]
    assert set(units.unseen) == {"lstm", "noise", "scripted", "forward/sigmoid"}
    assert "not seen: lstm (its gates are inside one function of PyTorch)" in units.table()


def test_an_encoder_is_seen_in_evaluation_too():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(3, 5, 8)
    with fluoroscope.watch(model) as units, torch.inference_mode():
        model(x)
    assert [layer for _, layer in units.frame().index] == ["layers.0/gelu", "layers.1/gelu"]
    assert units.frame()["units"].tolist() == [16, 16]


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("*", ["act", "act#2", "forward/relu"]),
        ("act", ["act", "act#2"]),
        ("act#2", ["act#2"]),
        (["*/relu"], ["forward/relu"]),
        (["forward/*", "act"], ["act", "act#2", "forward/relu"]),
    ],
)
def test_layers_are_chosen_by_name(layers, names):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.Tanh()

        def forward(self, x):
            return functional.relu(self.act(self.act(x)))

    model = Model()
    with fluoroscope.watch(model, layers) as units:
        model(torch.randn(3, 5))
    assert [layer for _, layer in units.frame().index] == names
