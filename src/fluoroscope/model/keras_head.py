"""The head of a trained Keras model, with its weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fluoroscope.errors import InputError, check_choice
from fluoroscope.model.head import Head

# Activations of Keras by name; its arguments where the defaults differ from PyTorch's.
ACTIVATIONS: dict[str, tuple[str, Mapping[str, Any]]] = {
    **{name: (name, {}) for name in ("relu", "elu", "selu", "celu", "silu", "gelu", "mish")},
    **{name: (name, {}) for name in ("softplus", "tanh", "sigmoid", "softsign", "relu6")},
    "swish": ("silu", {}),
    "hard_swish": ("hardswish", {}),
    "hard_silu": ("hardswish", {}),
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.2}),
    "linear": ("identity", {}),
}


def _relu(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    highest, slope = config["max_value"], float(config["negative_slope"])
    if config["threshold"] or highest not in (None, 6) or (slope and highest):
        raise InputError(
            f"the Keras layer ReLU has max_value={highest}, negative_slope={slope:g} and "
            f"threshold={config['threshold']:g}; a head has one with max_value=6 or a slope alone"
        )
    if slope:
        return "leaky_relu", {"negative_slope": slope}
    return ("relu" if highest is None else "relu6"), {}


# Layers of Keras that are activations, from what their `get_config` holds in Keras 3 or 2.
LAYERS: dict[str, Callable[[Mapping[str, Any]], tuple[str, Mapping[str, Any]]]] = {
    "ReLU": _relu,
    "LeakyReLU": lambda config: (
        "leaky_relu",
        {"negative_slope": float(config.get("negative_slope", config.get("alpha")))},
    ),
    "ELU": lambda config: ("elu", {"alpha": float(config["alpha"])}),
}
OUTPUTS = ("linear", "sigmoid")
LIBRARIES = ("keras", "tf_keras", "tensorflow")  # in which a function has the name's meaning
# The layers between both Dense layers, and the `order` and `norm` of a head that they mean.
BETWEEN = {
    (): ("activation-norm", "none"),
    ("Activation",): ("activation-norm", "none"),
    ("BatchNormalization",): ("activation-norm", "batch"),
    ("Activation", "BatchNormalization"): ("activation-norm", "batch"),
    ("BatchNormalization", "Activation"): ("norm-activation", "batch"),
}


def head_from_keras(layers: Sequence[Any]) -> Head:
    """A head in evaluation mode that gives the logits of the last layers of a Keras model.

    Keras is not imported: the layers of Keras 2 and 3 have what is read here. The sigmoid of the
    last layer is left out, because `Head` returns logits.

    Args:
        layers: `Dense`, `Activation`, `BatchNormalization`, `Dropout`, `Dense`, as in
            `model.layers[-3:]`. The first and the last are needed, the first may hold the
            activation, which may be a layer `ReLU`, `LeakyReLU` or `ELU` and may follow the norm.

    Raises:
        InputError: the layers stand in another order, have no weights yet, or do what no head does.
    """
    dense, inner, dropout, out = _parts(layers)
    order, norm = BETWEEN[_kinds(inner)]
    check_choice("the activation of the last Keras layer", _name(out), OUTPUTS)
    activation, arguments = _activation([dense, *inner])
    kernel, out_kernel = _read(dense)["kernel"], _read(out)["kernel"]
    head = Head(
        *(kernel.shape[0], out_kernel.shape[1], kernel.shape[1]),
        *(activation, arguments, norm),
        order=order,
        dropout=dropout,
    )
    _copy_dense(head.dense, dense)
    _copy_dense(head.out, out)
    for layer in inner:
        if isinstance(head.norm, nn.BatchNorm1d) and _kinds([layer]) == ("BatchNormalization",):
            _copy_norm(head.norm, layer)
    return head.eval()


def _parts(layers: Sequence[Any]) -> tuple[Any, list[Any], float, Any]:
    """The first layer, those between without dropout and linear activations, the rate, the last."""
    inner, dropout = list(layers[1:-1]), 0.0
    if _kinds(inner)[-1:] == ("Dropout",):
        dropout = inner.pop().get_config()["rate"]
    inner = [each for each in inner if _kinds([each]) != ("Activation",) or _name(each) != "linear"]
    kinds = [type(layer).__name__ for layer in layers]
    if len(kinds) < 2 or {kinds[0], kinds[-1]} != {"Dense"} or _kinds(inner) not in BETWEEN:
        raise InputError(
            f"the Keras layers are {', '.join(kinds) or 'none'}; a head is Dense, Activation, "
            "BatchNormalization, Dropout, Dense (all but Dense may be absent, and the norm may "
            "come before the activation): give such layers, as in model.layers[-3:]"
        )
    return layers[0], inner, dropout, layers[-1]


def _kinds(layers: Sequence[Any]) -> tuple[str, ...]:
    return tuple("Activation" if _is_activation(each) else type(each).__name__ for each in layers)


def _is_activation(layer: Any) -> bool:
    return type(layer).__name__ in LAYERS and _library(type(layer)) in LIBRARIES


def _function(layer: Any) -> Any:
    """The activation, which may be a layer, in a layer too; None where there is none."""
    return layer if _is_activation(layer) else getattr(layer, "activation", None)


def _library(thing: Any) -> str:
    return (getattr(thing, "__module__", None) or "").partition(".")[0]


def _name(layer: Any) -> str:
    """The name of a layer's activation in Keras; `linear` where there is none."""
    function = _function(layer)
    if function is None:
        return "linear"
    name = getattr(function, "__name__", type(function).__name__)
    library = _library(function)
    return name if library in LIBRARIES else f"{library}.{name}"


def _activation(layers: Sequence[Any]) -> tuple[str, Mapping[str, Any]]:
    """The one activation of the layers that is not linear, and its arguments."""
    names = [name for name in map(_name, layers) if name != "linear"] or ["linear"]
    if len(names) > 1:
        raise InputError(
            f"the Keras layers have the activations {' and '.join(names)}; a head has one"
        )
    if names[0] in LAYERS:
        (layer,) = [each for each in map(_function, layers) if _is_activation(each)]
        return LAYERS[names[0]](layer.get_config())
    check_choice("the activation of the Keras layers", names[0], ACTIVATIONS)
    return ACTIVATIONS[names[0]]


def _read(layer: Any) -> dict[str, Tensor]:
    """The weights of a `Dense` or `BatchNormalization` layer by their name in Keras."""
    config = layer.get_config()
    if "units" in config:
        names = ["kernel", *["bias"] * config["use_bias"]]
    else:
        names = ["gamma"] * config["scale"] + ["beta"] * config["center"]
        names += ["moving_mean", "moving_variance"]
    weights = layer.get_weights()
    if len(weights) != len(names):
        raise InputError(
            f"the Keras layer {layer.name} has {len(weights)} weights where {len(names)} are "
            f"expected ({', '.join(names)}): build or load the model first, and merge adapters "
            "or quantised weights"
        )
    arrays = [torch.from_numpy(np.array(each, dtype=np.float32)) for each in weights]
    return dict(zip(names, arrays, strict=True))


@torch.no_grad()
def _copy_dense(ours: nn.Linear, layer: Any) -> None:
    read = _read(layer)
    ours.weight.copy_(read["kernel"].T)
    ours.bias.copy_(read.get("bias", torch.zeros_like(ours.bias)))


@torch.no_grad()
def _copy_norm(ours: nn.BatchNorm1d, layer: Any) -> None:
    config, read = layer.get_config(), _read(layer)
    ours.eps, ours.momentum = config["epsilon"], 1 - config["momentum"]
    ours.weight.copy_(read.get("gamma", torch.ones_like(ours.weight)))
    ours.bias.copy_(read.get("beta", torch.zeros_like(ours.bias)))
    ours.running_mean, ours.running_var = read["moving_mean"], read["moving_variance"]
