"""The census of a layer of any shape, channel by channel."""

import torch
from timm.layers import LayerNormAct, LayerNormActFp32, RmsNormAct, RmsNormActFp32
from torch import Tensor, nn
from torchmetrics import Metric

from fluoroscope.diagnostics.census import LARGEST, LINEAR_CORR2, correlation2
from fluoroscope.elementwise import Function, gate

SHARES = ("dead_frac", "linear_frac", "nonlinear_frac", "gate_open_frac")
# Layers over the last dimension; an activation beside or inside one has its channels there.
NORMS_LAST = (LayerNormAct, LayerNormActFp32, RmsNormAct, RmsNormActFp32)
CHANNELS_LAST = (nn.Linear, *NORMS_LAST)
# Elements counted at a time, in float64; on a CPU they must fit into the cache.
CHUNK_CPU, CHUNK_GPU = 2**16, 2**22


def at_least_2d(z: Tensor) -> Tensor:
    """A vector or a number as one image; `[B, ...]` as it is."""
    return z if z.ndim > 1 else z.reshape(1, -1)


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
    """Dead, linear and nonlinear channels of a layer over a window; terms as in `UnitCensus`, also
    for what is not finite.

    A unit is a channel, and every position of every image is a sample of it: a dead channel is
    closed everywhere. The state is sums in float64, so that windows merge exactly across batches
    and processes. It needs less memory than `UnitCensus` on flattened maps, because it counts maps
    in small parts and in their memory order.

    Args:
        activation: the elementwise phi, a module or a function.
        width: C, the number of channels.
        tolerance: gates at or below it count as closed.
        blackouts: whether `images` are counted, which takes a sixth of the time more.

    Attributes:
        images: those with a known gate, and those of them in which every unit is closed at every
            position (blackouts); an image is an entry of the first dimension.
        nonfinite_frac: share of samples, of the window that `compute` closed, that were not finite.
    """

    full_state_update = False
    sums: Tensor
    left_out: Tensor
    images: Tensor

    def __init__(
        self,
        activation: Function,
        width: int,
        tolerance: float = 1e-6,
        blackouts: bool = False,
    ) -> None:
        super().__init__()
        self.blackouts = blackouts
        self.activation = activation
        self.width = width
        self.tolerance = tolerance
        # Samples with a known gate, open ones, and the sums of z, a, z^2, a^2, za; float64 counts
        # up to 2^53.
        state = torch.zeros(7, width, dtype=torch.float64)
        self.add_state("sums", state, dist_reduce_fx="sum")
        # Samples without a known gate, and those of the others whose values are not finite.
        state = torch.zeros(2, width, dtype=torch.float64)
        self.add_state("left_out", state, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.nonfinite_frac = torch.tensor(float("nan"))

    def update(self, z: Tensor, dim: int) -> None:
        """Add pre-activations of any shape with the channels in dimension `dim`."""
        z = z.detach()
        chunk = CHUNK_CPU if z.device.type == "cpu" else CHUNK_GPU
        images = max(1, chunk * len(z) // max(1, z.numel()))
        for part in z.split(images):
            self._add(part, dim)

    def _add(self, z: Tensor, dim: int) -> None:
        a, g = gate(self.activation, z)
        others = [d for d in range(z.ndim) if d != dim]
        known = ~(z.isnan() | g.isnan())
        is_open = known & (g.abs() > self.tolerance)
        opened = is_open.sum(others)
        z, a = z.double(), a.double()
        finite = known & (z.abs() <= LARGEST) & (a.abs() <= LARGEST)
        z, a = z.where(finite, 0.0), a.where(finite, 0.0)
        moments = (v.sum(others) for v in (z, a, z * z, a * a, z * a))
        samples, counted = known.sum(others), finite.sum(others)
        self.sums = self.sums + torch.stack([samples, opened, *moments])
        total = z.numel() // max(1, z.shape[dim])
        self.left_out = self.left_out + torch.stack([total - samples, samples - counted])
        if self.blackouts:
            rest = tuple(range(1, z.ndim))
            seen = known.any(rest)
            black = seen & ~is_open.any(rest)
            self.images = self.images + torch.stack([seen.sum(), black.sum()])

    def compute(self) -> Tensor:
        """`SHARES` of the channels, `[4]` on the device; NaN for a window without samples."""
        shares = channel_shares(self.sums, self.left_out)
        self.nonfinite_frac = shares[-1]
        return shares[:-1]


def channel_shares(sums: Tensor, left_out: Tensor) -> Tensor:
    """`SHARES` and the share that was not finite, `[5]`, from these sums of a `ChannelCensus`."""
    dead, linear = kinds(sums, left_out)
    total = (sums[0] + left_out[0]).sum()
    census = torch.stack([dead, linear, ~dead & ~linear]).double().mean(dim=1)
    rest = torch.stack([sums[1].mean() / sums[0].mean(), left_out.sum() / total])
    return torch.where(total > 0, torch.cat([census, rest]), float("nan"))


def kinds(sums: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Dead and linear channels, bool `[C]` each, from these sums of a `ChannelCensus`."""
    samples, opened = sums[:2]
    dead = (samples > 0) & (opened == 0)
    linear = ~dead & (correlation2(sums[2:], samples - left_out[1]) > LINEAR_CORR2)
    return dead, linear
