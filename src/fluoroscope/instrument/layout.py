"""Which dimension of a pre-activation holds the channels."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from fluoroscope.diagnostics.channels import NORMS_LAST

LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
SECOND = (_ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm)
WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "normalized_shape")


class Layout:
    """The channels of an activation are where the last layer before it had them.

    Convolutions and batch norm have them in dimension 1, linear layers and layer norm in the last
    one. A layer that changes the order, such as a layer norm over maps, is recognised by the width
    of its output, and so is a transposition after the layer.

    Args:
        chosen: dimensions that the user states, by pattern of layer names.
    """

    def __init__(self, chosen: Mapping[str, int]) -> None:
        self.chosen = chosen
        self._last: torch.Size | None = None  # shape that the last layer returned
        self._dim = 0

    def note(self, module: nn.Module, output: object) -> None:
        """A layer has returned this output."""
        if isinstance(module, LAST + SECOND) and isinstance(output, Tensor) and output.ndim > 1:
            self._last, self._dim = output.shape, _dim(module, output)

    def channel_dim(self, name: str, shape: torch.Size, parent: nn.Module | None) -> int:
        """Dimension of the channels of a pre-activation `[B, ...]` of this shape.

        If the layer before had another number of dimensions, it is the last one of vectors and
        tokens `[B, T, C]`, and 1 in maps.

        Args:
            name: of the activation.
            parent: the module that calls it.
        """
        dims = len(shape)
        stated = [dim for pattern, dim in self.chosen.items() if fnmatchcase(name, pattern)]
        if stated:
            return stated[0] % dims
        if isinstance(parent, NORMS_LAST):  # it calls its activation before it returns
            return dims - 1
        if self._last is None or len(self._last) != dims:
            return dims - 1 if dims < 4 else 1
        width = self._last[self._dim]
        if shape[self._dim] != width and sorted(shape[1:]) == sorted(self._last[1:]):
            return shape.index(width, 1)  # transposed
        return self._dim


def _dim(module: nn.Module, output: Tensor) -> int:
    """1 or the last dimension: the one as wide as the layer; if both are, by the layer's kind."""
    last, by_kind = output.ndim - 1, output.ndim - 1 if isinstance(module, LAST) else 1
    width = next((getattr(module, name) for name in WIDTHS if hasattr(module, name)), None)
    width = width[-1] if isinstance(width, tuple) else width
    fitting = {dim for dim in (1, last) if output.shape[dim] == width}
    return fitting.pop() if len(fitting) == 1 else by_kind
