"""Which modules and functions of a network are elementwise activations."""

import copy
import inspect
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.loss import _Loss
from torch.nn.utils.parametrize import ParametrizationList
from torchmetrics import Metric

from fluoroscope.diagnostics.known_activations import ELEMENTWISE
from fluoroscope.elementwise import PROBED_IMAGES, check_elementwise, gate
from fluoroscope.errors import InputError

KNOWN = frozenset(ELEMENTWISE)
# Parts of a LightningModule that are no part of its network, and functions of weights.
NO_LAYERS = (Metric, _Loss, ParametrizationList)
MAYBE, INSIDE, OTHER, RANDOM = (
    "a function that may be a part of an activation, or none",
    "its gates are inside one function of PyTorch",
    "the gate of a unit is another unit",
    "it draws random numbers",
)
UNSEEN_MODULES: dict[type[nn.Module], str] = {
    torch.jit.ScriptModule: "it is scripted",
    nn.RNNBase: INSIDE,
    nn.RNNCellBase: INSIDE,
    nn.RReLU: RANDOM,
    nn.GLU: OTHER,
}
NAMES = (
    *("relu", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "prelu"),
    *("hardswish", "hardtanh", "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink"),
    *("hardsigmoid", "threshold", "tanh"),
)


def _functions(names: Iterable[str]) -> dict[Any, str]:
    """PyTorch's functions and methods of these names, also those that work in place."""
    found = {}
    for name in names:
        for place in (functional, torch, Tensor, torch._C._nn):
            for variant in (name, f"{name}_"):
                function = getattr(place, variant, None)
                if callable(function):
                    found[function] = name
    return found


FUNCTIONS = _functions(NAMES)
# In x * sigmoid(x) or an LSTM a sigmoid is a part of an activation, and after the last layer it
# makes probabilities; max(z, 0) may be a ReLU or a distance.
UNCLEAR = _functions(("sigmoid", "maximum", "clamp", "clamp_min", "clip", "glu", "rrelu"))
REASONS = {"glu": OTHER, "rrelu": RANDOM}


def why_unclear(function: Any, arguments: tuple[Any, ...], keys: dict[str, Any]) -> str | None:
    """Why a function of `UNCLEAR` is not counted; None if this call is no activation."""
    name = UNCLEAR[function]
    if name in ("clamp", "clamp_min", "clip"):
        lowest = arguments[1] if len(arguments) > 1 else keys.get("min")
        if isinstance(lowest, Tensor) or lowest != 0:
            return None
    return REASONS.get(name, MAYBE)


TRIED_PX = 5


class Functional:
    """A function of PyTorch with the further arguments of its last call.

    Its copies have those of the moment: a network may change a slope from call to call.
    """

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        self.function, self.__name__ = function, name
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Functional) and self.__name__ == other.__name__

    __hash__ = object.__hash__

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z, *self.args, **self.kwargs)


def names_of(network: nn.Module) -> dict[nn.Module, str]:
    """Its modules with their qualified names, which `torch.compile` of a part does not change."""
    return {
        module: ".".join(part for part in name.split(".") if part != "_orig_mod")
        for name, module in network.named_modules()
    }


def is_container(module: nn.Module) -> bool:
    """Whether a module only holds others."""
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def is_candidate(module: nn.Module) -> bool:
    """Whether a module could be an activation of the user's own, so that a trial is worth it.

    It takes one argument, and has activations as its parts or at most one parameter per unit. One
    that has both, such as a scale before a ReLU, is a layer with an activation.
    """
    if is_container(module) or type(module) in KNOWN or _is_of_torch(type(module)):
        return False
    if not all(type(child) in KNOWN for child in module.children()):
        return False
    own = [p.shape for p in module.parameters(recurse=False)]
    if any(sum(side > 1 for side in shape) > 1 for shape in own) or (
        own and any(True for _ in module.children())
    ):
        return False
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return False
    return len([p for p in parameters if p.default is p.empty and p.kind in _POSITIONAL]) == 1


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _is_of_torch(cls: type[nn.Module]) -> bool:
    """Whether PyTorch defines this class; its activations are known."""
    return cls.__module__.startswith("torch.")


def is_activation(module: nn.Module, z: Tensor) -> bool:
    """Whether a candidate is elementwise, not affine, and the same in training and evaluation.

    A copy of it is tried on fixed numbers of the shape of `z` `[B, ...]`. Random numbers that the
    trial draws do not change those of the training.
    """
    if isinstance(module, torch.jit.ScriptModule) or not z.is_floating_point():
        return False
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            trial = copy.deepcopy(module).to("cpu", torch.float32)
            shape = _tried_shape(trial, z)
            return all(_passes(trial.train(mode), shape) for mode in (True, False))
    except Exception:  # whatever a stranger's module raises, it is left unwatched
        return False
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _tried_shape(module: nn.Module, z: Tensor) -> torch.Size:
    """The shape of an image of z, cut where no parameter is as long: volumes would fill memory."""
    own = {side for t in (*module.parameters(), *module.buffers()) for side in t.shape}
    return torch.Size(side if side in own else min(side, TRIED_PX) for side in z.shape[1:])


def _passes(module: nn.Module, shape: torch.Size) -> bool:
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def flat(z: Tensor) -> Tensor:
        a: Tensor = module.forward(z.reshape(len(z), *shape)).reshape(len(z), -1)
        return a

    try:
        check_elementwise(flat, shape.numel())
    except InputError:
        return False
    after = module.state_dict()
    if any(not torch.equal(value, after[name]) for name, value in before.items()):
        return False  # it keeps statistics, which a second evaluation would change
    z = torch.linspace(-4, 4, PROBED_IMAGES)[:, None].expand(-1, shape.numel())
    g = gate(flat, z.contiguous())[1]
    return not torch.allclose(g, g[:1].expand_as(g), rtol=1e-4, atol=1e-6)
