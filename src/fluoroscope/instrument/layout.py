"""Which dimension of a pre-activation holds the channels."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from fluoroscope.diagnostics.channels import NORMS_LAST
from fluoroscope.errors import InputError, plural

LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
SECOND = (_ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm)
WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "normalized_shape")


class Layout:
    """The channels of an activation are where the last layer before had them.

    Convolutions and batch norm have them in dimension 1, linear layers and layer norm in the last
    one. A layer that changes the order, such as a layer norm over maps, is recognised by the width
    of its output. After it, a transposition is recognised by the sizes of the other dimensions.

    Args:
        chosen: dimensions that the user states, by pattern of layer names.
    """

    def __init__(self, chosen: Mapping[str, int]) -> None:
        self.chosen = chosen
        # Of the last layer, and of the last one by the number of dimensions: shape and channels.
        self._last: tuple[torch.Size, int] | None = None
        self._by_dims: dict[int, tuple[torch.Size, int]] = {}

    def note(self, module: nn.Module, output: object) -> None:
        """A layer has returned this output."""
        if isinstance(module, LAST + SECOND) and isinstance(output, Tensor) and output.ndim > 1:
            self._last = output.shape, _dim(module, output)
            self._by_dims[output.ndim] = self._last

    def channel_dim(self, name: str, shape: torch.Size, parent: nn.Module | None) -> int:
        """Dimension of the channels of a pre-activation of this shape, see `by_image`.

        If no layer before had as many dimensions, it is the last one of vectors and tokens
        `[B, T, C]`, and 1 in maps.

        Args:
            name: of the activation.
            parent: the module that calls it.

        Raises:
            InputError: the dimension that the user states does not exist, or holds the images.
        """
        dims = len(shape)
        stated = [dim for pattern, dim in self.chosen.items() if fnmatchcase(name, pattern)]
        if stated and dims > 1:
            return _checked(stated[0], dims)
        if isinstance(parent, NORMS_LAST):  # it calls its activation before it returns
            return dims - 1
        return dims if self._is_squeezed(shape) else self._of_last_layer(shape)

    def _of_last_layer(self, shape: torch.Size) -> int:
        dims = len(shape)
        if dims not in self._by_dims:
            return 0 if dims < 2 else dims - 1 if dims < 4 else 1
        last, dim = self._by_dims[dims]
        return dim if _places(shape, dim) == _places(last, dim) else _transposed(shape, last, dim)

    def _is_squeezed(self, shape: torch.Size) -> bool:
        """Whether the last layer's only channel was removed: `[B]` of `[B, 1]`."""
        if self._last is None or len(shape) in self._by_dims:
            return False
        last, dim = self._last
        return last[dim] == 1 and shape == last[:dim] + last[dim + 1 :]


def _places(shape: torch.Size, dim: int) -> tuple[int, ...]:
    """The dimensions that hold neither images nor channels."""
    return (*shape[1:dim], *shape[dim + 1 :])


def _transposed(shape: torch.Size, last: torch.Size, dim: int) -> int:
    """The one dimension that is left beside the places of the last layer; `dim` if none is."""
    left = list(range(min(dim, 1), len(shape)))
    for size in _places(last, dim):
        place = next((d for d in left if shape[d] == size), None)
        if place is None:
            return dim
        left.remove(place)
    return left[0] if len(left) == 1 else dim


def by_image(z: Tensor, dim: int) -> tuple[Tensor, int]:
    """Pre-activations with images in dimension 0, and the dimension of their channels.

    Args:
        dim: 0 of one image alone, `[C]` or `[C, H, W]`; `z.ndim` of images with one channel that
            has no dimension; otherwise of the channels.
    """
    if dim == 0:
        return (z.unsqueeze(0) if z.ndim else z.reshape(1, 1)), 1
    return (z.unsqueeze(-1) if dim == z.ndim else z), dim


def _checked(dim: int, dims: int) -> int:
    if not -dims <= dim < dims or dim % dims == 0:
        raise InputError(f"channel_dims says {dim}, and its input has {plural(dims, 'dimension')}")
    return dim % dims


def _dim(module: nn.Module, output: Tensor) -> int:
    """The dimension that is as wide as the layer: 0 of one image alone, else 1 or the last one.

    If both are as wide, it depends on the kind of the layer.
    """
    if _is_unbatched(module, output):
        return 0
    last, by_kind = output.ndim - 1, output.ndim - 1 if isinstance(module, LAST) else 1
    width = next((getattr(module, name) for name in WIDTHS if hasattr(module, name)), None)
    width = width[-1] if isinstance(width, tuple) else width
    fitting = {dim for dim in (1, last) if output.shape[dim] == width}
    return fitting.pop() if len(fitting) == 1 else by_kind


def _is_unbatched(module: nn.Module, output: Tensor) -> bool:
    if isinstance(module, _ConvNd):
        return output.ndim == len(module.kernel_size) + 1
    return isinstance(module, _InstanceNorm) and output.ndim == module._get_no_batch_dim()
