"""Activations of your own: a module with a learnt parameter, a function, and an own derivative."""

import torch
from torch import Tensor, nn


class Snake(nn.Module):
    """z + sin(a z)^2 / a, with a learnt.

    Source: L. Ziyin et al., Neural Networks Fail to Learn Periodic Functions and How to Fix It,
        NeurIPS 2020, equation 3.
    """

    def __init__(self, a: float = 1.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))

    def forward(self, z: Tensor) -> Tensor:
        return z + torch.sin(self.a * z).square() / self.a


def squared_relu(z: Tensor, scale: float = 1.0) -> Tensor:
    """A plain function; its arguments after the first are `head.activation_args`."""
    return scale * torch.relu(z).square()


class _Swish(torch.autograd.Function):
    """z sigmoid(z), which keeps only z for the backward pass."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z * torch.sigmoid(z)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * _Swish.slope(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        """Forward mode: the same derivative."""
        return tangent * _Swish.slope(*ctx.saved_tensors)

    @staticmethod
    def slope(z: Tensor) -> Tensor:
        gate = torch.sigmoid(z)
        return gate + z * gate * (1 - gate)


def swish(z: Tensor) -> Tensor:
    """An activation whose backward pass is written by hand."""
    return _Swish.apply(z)
