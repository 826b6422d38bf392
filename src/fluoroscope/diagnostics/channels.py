"""The census of a layer of any shape, channel by channel."""

import torch
from timm.layers import (
    LayerNormAct,
    LayerNormActFp32,
    RmsNormAct,
    RmsNormActFp32,
    activations,
    activations_me,
)
from torch import Tensor, nn
from torchmetrics import Metric

from fluoroscope.diagnostics.census import LINEAR_CORR2, correlation2, gate

SHARES = ("dead_frac", "linear_frac", "nonlinear_frac", "gate_open_frac")
# Layers over the last dimension; an activation beside or inside one has its channels there.
CHANNELS_LAST = (nn.Linear, LayerNormAct, LayerNormActFp32, RmsNormAct, RmsNormActFp32)
# Elements counted at a time, in float64; on a CPU they must fit into the cache.
CHUNK_CPU, CHUNK_GPU = 2**16, 2**22


def channel_dim(z: Tensor, parent: nn.Module) -> int:
    """Dimension of the channels of a pre-activation.

    It is the last one in vectors `[B, C]`, tokens `[B, T, C]` and maps `[B, H, W, C]`, and 1 in
    maps `[B, C, H, W]`. Only linear layers and norms over the last dimension make `[B, H, W, C]`.

    Args:
        parent: the module that holds the activation.
    """
    linear = isinstance(parent, CHANNELS_LAST) or any(
        isinstance(child, CHANNELS_LAST) for child in parent.children()
    )
    return z.ndim - 1 if z.ndim < 4 or linear else 1


class ChannelCensus(Metric):
    """Dead, linear and nonlinear channels of a layer over a window; terms as in `UnitCensus`.

    A unit is a channel, and every position of every image is a sample of it: a dead channel is
    closed everywhere. The state is sums in float64, so that windows merge exactly across batches
    and processes. It needs less memory than `UnitCensus` on flattened maps, because it counts maps
    in small parts and in their memory order.

    Args:
        activation: the elementwise phi.
        width: C, the number of channels.
        tolerance: gates at or below it count as closed.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, activation: nn.Module, width: int, tolerance: float = 1e-6) -> None:
        super().__init__()
        self.activation = _differentiable(activation)
        self.width = width
        self.tolerance = tolerance
        # Samples, open ones, and the sums of z, a, z^2, a^2, za; float64 counts up to 2^53.
        state = torch.zeros(7, width, dtype=torch.float64)
        self.add_state("sums", state, dist_reduce_fx="sum")

    def update(self, z: Tensor, dim: int) -> None:
        """Add pre-activations of any shape with the channels in dimension `dim`."""
        z = z.detach()
        chunk = CHUNK_CPU if z.device.type == "cpu" else CHUNK_GPU
        images = max(1, chunk * len(z) // max(1, z.numel()))
        for part in z.split(images):
            self.sums = self.sums + self._sums(part, dim)

    def _sums(self, z: Tensor, dim: int) -> Tensor:
        a, g = gate(self.activation, z)
        # Negated, so that a gate of NaN does not count as closed.
        is_open = ~(g.abs() <= self.tolerance)
        others = [d for d in range(z.ndim) if d != dim]
        opened = is_open.sum(others)
        samples = torch.full_like(opened, z.numel() // max(1, z.shape[dim]))
        z, a = z.double(), a.double()
        moments = (v.sum(others) for v in (z, a, z * z, a * a, z * a))
        return torch.stack([samples, opened, *moments])

    def compute(self) -> Tensor:
        """`SHARES` of the channels, `[4]` on the device; NaN for a window without samples."""
        samples, opened = self.sums[:2]
        dead = opened == 0
        linear = ~dead & (correlation2(self.sums[2:], samples) > LINEAR_CORR2)
        per_unit = torch.stack([dead, linear, ~dead & ~linear, opened / samples])
        return torch.where(samples > 0, per_unit, float("nan")).mean(dim=1)


def _differentiable(activation: nn.Module) -> nn.Module:
    """The same function in a form that forward mode can differentiate."""
    if type(activation).__module__ != activations_me.__name__:
        return activation
    # timm's memory-efficient activations define only a backward pass.
    twin: nn.Module = getattr(activations, type(activation).__name__.removesuffix("Me"))()
    return twin
