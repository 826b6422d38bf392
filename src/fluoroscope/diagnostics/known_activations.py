"""The classes of elementwise activations in PyTorch and timm."""

import inspect
from collections.abc import Iterator

from timm.layers import activations, activations_me
from torch import nn

NOT_ELEMENTWISE = {"GLU", "MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
RANDOM = {"RReLU"}  # a second evaluation would draw other numbers and change the training


def _classes() -> Iterator[type[nn.Module]]:
    for name in nn.modules.activation.__all__:
        if name not in NOT_ELEMENTWISE | RANDOM:
            yield getattr(nn, name)
    for module in (activations, activations_me):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, nn.Module) and cls.__module__ == module.__name__:
                yield cls


ELEMENTWISE = tuple(_classes())
