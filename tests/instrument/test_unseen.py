"""What looks like an activation and is none, or cannot be counted, is left out and said."""

import resource

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

import fluoroscope
from fluoroscope.instrument.discovery import INSIDE, MAYBE, OTHER, RANDOM, is_activation


class Positive(nn.Module):
    """A function of weights that looks like an activation."""

    def forward(self, weight):
        return functional.softplus(weight)


class Named(Positive):
    def __init__(self):
        super().__init__()
        self.act = nn.Softplus()

    def forward(self, weight):
        return self.act(weight)


def positive(cls):
    layer = nn.Linear(4, 6)
    parametrize.register_parametrization(layer, "weight", cls())
    return layer


class Uncertain(nn.Linear):
    def forward(self, x):
        return functional.linear(x, functional.softplus(self.weight), self.bias)


WEIGHTS = {
    "parametrized": lambda: positive(Positive),
    "parametrized by a module": lambda: positive(Named),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 6)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 6)),
    "softplus of a weight": lambda: Uncertain(4, 6),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_function_of_weights_is_no_layer(name):
    model = nn.Sequential(WEIGHTS[name](), nn.ReLU())
    with fluoroscope.watch(model) as units:
        model(torch.randn(3, 4)).sum().backward()
    assert units.frame()[["units", "images"]].droplevel(0).T.to_dict("list") == {"1": [6, 3]}
    parameter = "its input is a parameter, so it is a part of the weights"
    assert units.unseen == ({"0/softplus": parameter} if "softplus" in name else {})


ZERO = torch.zeros(())
FUNCTIONS = {
    "clamp": (lambda z: z.clamp(min=0), MAYBE),
    "clamp of torch": (lambda z: torch.clamp(z, 0.0), MAYBE),
    "clamp in place": (lambda z: (z * 1).clamp_(0, 6), MAYBE),
    "clamp_min": (lambda z: z.clamp_min(0), MAYBE),
    "clip": (lambda z: torch.clip(z, min=0), MAYBE),
    "maximum": (lambda z: torch.maximum(z, ZERO), MAYBE),
    "sigmoid": (lambda z: z * torch.sigmoid(z), MAYBE),
    "glu": (functional.glu, OTHER),
    "rrelu": (lambda z: functional.rrelu(z, training=True), RANDOM),
    "clamp by no zero": (lambda z: z.clamp(min=1e-6), None),
    "clamp above": (lambda z: z.clamp(max=1), None),
    "clamp by a tensor": (lambda z: z.clamp(min=ZERO), None),
    "clamp of a number of images": (lambda z: z[: z.long().clamp(min=0).shape[0]], None),
}


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.act, self.function = nn.Linear(4, 6), nn.Tanh(), function

    def forward(self, x):
        return self.act(self.function(self.layer(x)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_may_be_an_activation_is_named(name):
    function, why = FUNCTIONS[name]
    model = Calls(function)
    with fluoroscope.watch(model) as units:
        model(torch.randn(3, 4)).sum().backward()
    assert units.frame().droplevel(0).index.tolist() == ["act"]
    assert units.unseen == ({} if why is None else {f"forward/{name.split()[0]}": why})


MODULES = {
    "lstm": (lambda: nn.LSTM(4, 6), INSIDE),
    "lstm cell": (lambda: nn.LSTMCell(4, 6), INSIDE),
    "gru cell": (lambda: nn.GRUCell(4, 6), INSIDE),
    "rnn cell": (lambda: nn.RNNCell(4, 6, nonlinearity="relu"), INSIDE),
    "glu": (nn.GLU, OTHER),
    "rrelu": (nn.RReLU, RANDOM),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_whose_gates_cannot_be_seen_is_named_before_it_is_called(name):
    make, why = MODULES[name]
    model = nn.Sequential(make())
    with fluoroscope.watch(model) as units:
        assert units.unseen == {"0": why}
        model(torch.randn(3, 4))
    assert units.unseen == {"0": why}


class Transformed(nn.Module):
    """Transforms of functions within forward, whose tensors must not leave them."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.act, self.kind = nn.Linear(4, 6), nn.ReLU(), kind

    def one(self, x):
        return functional.gelu(self.act(self.layer(x)))

    def forward(self, x):
        if self.kind == "vmap":
            return torch.vmap(self.one)(x)
        return torch.func.grad(lambda v: self.one(v).sum())(x)


@pytest.mark.parametrize("kind", ["vmap", "grad"])
def test_a_transform_within_forward_is_said_and_gives_what_it_gives(kind):
    model, x = Transformed(kind), torch.randn(3, 4)
    wanted = model(x)
    with fluoroscope.watch(model) as units:
        assert torch.equal(model(x), wanted)
        model.one(x)
        frame = units.frame()
    assert {"act", "forward/gelu"} <= units.unseen.keys()
    assert set(units.unseen.values()) == {"a call within torch.func"}
    assert frame["images"].droplevel(0).to_dict() == {"act": 3}  # of `one` alone


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.7 * x)


class Slopes(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(0.5, 2, channels).view(-1, 1, 1, 1))

    def forward(self, x):
        return torch.tanh(self.slope * x)


def test_a_trial_of_a_volume_needs_little_memory():
    volume = torch.zeros(1, 9, 96, 96, 96)  # 32 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert is_activation(Swish(), volume)
    assert is_activation(Slopes(9), volume)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2e4  # kB


@pytest.mark.parametrize("module", [nn.Softmax(1), nn.Softmax2d(), nn.ChannelShuffle(3)])
def test_what_mixes_places_is_none_at_any_size(module):
    assert not is_activation(module, torch.zeros(2, 9, 20, 30))
