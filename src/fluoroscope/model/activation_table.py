"""The table of activations that have a name; an import path names any other.

To add an activation, add a line to `ACTIVATIONS`. Nothing is imported before one is made.
"""

from typing import NamedTuple


class Activation(NamedTuple):
    """The class of an activation and the names of the arguments that a user may set."""

    path: str  # `module:class`
    arguments: tuple[str, ...] = ()


# PReLU's arguments device and dtype are omitted: the trainer sets them.
ACTIVATIONS = {
    "relu": Activation("torch.nn:ReLU", ("inplace",)),
    "leaky_relu": Activation("torch.nn:LeakyReLU", ("negative_slope", "inplace")),
    "prelu": Activation("torch.nn:PReLU", ("num_parameters", "init")),
    "elu": Activation("torch.nn:ELU", ("alpha", "inplace")),
    "selu": Activation("torch.nn:SELU", ("inplace",)),
    "celu": Activation("torch.nn:CELU", ("alpha", "inplace")),
    "gelu": Activation("torch.nn:GELU", ("approximate",)),
    "silu": Activation("torch.nn:SiLU", ("inplace",)),
    "mish": Activation("torch.nn:Mish", ("inplace",)),
    "hardswish": Activation("torch.nn:Hardswish", ("inplace",)),
    "softplus": Activation("torch.nn:Softplus", ("beta", "threshold")),
    "tanh": Activation("torch.nn:Tanh"),
    "sigmoid": Activation("torch.nn:Sigmoid"),
    "softsign": Activation("torch.nn:Softsign"),
    "relu6": Activation("torch.nn:ReLU6", ("inplace",)),
    "hard_sigmoid": Activation("torch.nn:Hardsigmoid", ("inplace",)),
    "hard_mish": Activation("timm.layers.activations:HardMish", ("inplace",)),
    "gelu_tanh": Activation("timm.layers.activations:GELUTanh", ("inplace",)),
    "quick_gelu": Activation("timm.layers.activations:QuickGELU", ("inplace",)),
    "identity": Activation("torch.nn:Identity"),
}
