"""Where the channels of a pre-activation are, and which images it holds: by numpy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fluoroscope
from tests.instrument.oracle import expected


class Head(nn.Module):
    """One unit, whose dimension is removed before the activation."""

    def __init__(self, layer, dim):
        super().__init__()
        self.layer, self.dim, self.act = layer, dim, nn.ReLU()

    def forward(self, x):
        return self.act(self.layer(x).squeeze(self.dim))


class Excited(nn.Module):
    """A linear layer on pooled values between a convolution and its activation."""

    def __init__(self, layer, pooled):
        super().__init__()
        self.layer, self.pooled, self.scale = layer, pooled, nn.Linear(7, 7)
        self.act = nn.ReLU()

    def forward(self, x):
        z = self.layer(x)
        gate = torch.sigmoid(self.scale(z.mean(self.pooled)))
        return self.act(z * gate[(..., *[None] * len(self.pooled))])


def plain(*layers):
    return nn.Sequential(*layers, nn.ReLU())


# The network, the shape of its input, and how numpy's oracle reads a pre-activation: images first,
# then the dimension of the channels.
CASES = {
    "one unit": (lambda: Head(nn.Linear(3, 1), -1), (5, 3), lambda z: z[:, None], 1),
    "one unit of tokens": (lambda: Head(nn.Linear(3, 1), -1), (5, 4, 3), lambda z: z[..., None], 2),
    "one map": (lambda: Head(nn.Conv2d(3, 1, 2), 1), (5, 3, 6, 8), lambda z: z[:, None], 1),
    "one vector": (lambda: plain(nn.Linear(3, 7)), (3,), lambda z: z[None], 1),
    "one image": (lambda: plain(nn.Conv2d(3, 7, 2)), (3, 6, 8), lambda z: z[None], 1),
    "one signal": (lambda: plain(nn.Conv1d(3, 7, 2)), (3, 8), lambda z: z[None], 1),
    "one normed image": (
        lambda: plain(nn.Conv2d(3, 7, 2), nn.InstanceNorm2d(7)),
        *((3, 6, 8), lambda z: z[None], 1),
    ),
    "excited signal": (lambda: Excited(nn.Conv1d(3, 7, 2), (2,)), (5, 3, 9), lambda z: z, 1),
    "excited map": (lambda: Excited(nn.Conv2d(3, 7, 2), (2, 3)), (5, 3, 6, 8), lambda z: z, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_numpy_where_a_dimension_lacks(name):
    make, shape, images, dim = CASES[name]
    torch.manual_seed(5)
    model, kept = make().double(), []

    def keep(module, inputs):
        (z,) = inputs
        z.retain_grad()
        kept.append(z)

    act = next(m for m in model.modules() if isinstance(m, nn.ReLU))
    act.register_forward_pre_hook(keep)
    with fluoroscope.watch(model) as units:
        for _ in range(2):
            model(torch.randn(*shape, dtype=torch.float64)).square().sum().backward()
    calls = []
    for z in kept:
        call = images(z.detach()).clone()
        call.grad = images(z.grad)
        calls.append(call)
    (found,) = units.frame().to_dict("records")
    assert found == pytest.approx(expected("relu", calls, dim), rel=1e-9, nan_ok=True)


class Mixed(nn.Module):
    """Linear layers over the last dimension, and activations elsewhere, as in a Mamba block."""

    def __init__(self, parts, moved):
        super().__init__()
        self.layer, self.parts, self.moved = nn.Linear(3, 14), parts, moved

    def forward(self, x):
        z = self.layer(x)
        z = z.transpose(1, -1) if self.moved else z
        return [functional.silu(part) for part in z.chunk(self.parts, dim=1 if self.moved else -1)]


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 6, 3)])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("moved", [False, True])
def test_channels_that_were_split_and_moved_are_found(shape, parts, moved):
    with fluoroscope.watch(Mixed(parts, moved)) as units:
        units._named(torch.randn(*shape))
    assert units.frame()["units"].tolist() == [14 // parts] * parts


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(3, 7), nn.Tanh()

    def forward(self, x):
        return functional.relu(self.act(self.layer(x)))


@pytest.mark.parametrize(("dim", "images"), [(2, False), (-3, False), (-2, False), (1, True)])
def test_a_stated_dimension_that_does_not_exist_or_holds_the_images_is_said(dim, images):
    model = Signal()
    with fluoroscope.watch(model, channel_dims={"act": dim}) as units:
        model(torch.randn(5, 3))
    assert ("act" in units.frame().droplevel("window").index) is images
    why = f"channel_dims says {dim}, and its input has 2 dimensions"
    assert units.unseen == ({} if images else {"act": why})
    assert units.frame().loc[("train", "forward/relu"), "units"] == 7


def test_an_empty_batch_adds_nothing():
    model, x = plain(nn.Linear(3, 7)), torch.randn(4, 3)
    frames = []
    for batches in ([x], [x[:0], x, x[:0]]):
        with fluoroscope.watch(model.eval()) as units:
            [model(batch) for batch in batches]
        frames.append(units.frame().to_numpy())
    np.testing.assert_array_equal(frames[0], frames[1])
