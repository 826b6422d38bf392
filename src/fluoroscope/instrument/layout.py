"""Which dimension of a pre-activation holds the channels."""

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
    of its output.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None  # number of dimensions, dimension of channels

    def note(self, module: nn.Module, output: object) -> None:
        """A layer has returned this output."""
        if isinstance(module, LAST + SECOND) and isinstance(output, Tensor) and output.ndim > 1:
            self._last = output.ndim, _dim(module, output)

    def channel_dim(self, dims: int, parent: nn.Module | None) -> int:
        """Dimension of the channels of a pre-activation with `dims` dimensions.

        `parent` calls the activation.

        If the layer before had another number of dimensions, it is the last one of vectors and
        tokens `[B, T, C]`, and 1 in maps.
        """
        if isinstance(parent, NORMS_LAST):  # it calls its activation before it returns
            return dims - 1
        if self._last is not None and self._last[0] == dims:
            return self._last[1]
        return dims - 1 if dims < 4 else 1


def _dim(module: nn.Module, output: Tensor) -> int:
    """1 or the last dimension: the one as wide as the layer; if both are, by the layer's kind."""
    last, by_kind = output.ndim - 1, output.ndim - 1 if isinstance(module, LAST) else 1
    width = next((getattr(module, name) for name in WIDTHS if hasattr(module, name)), None)
    width = width[-1] if isinstance(width, tuple) else width
    fitting = {dim for dim in (1, last) if output.shape[dim] == width}
    return fitting.pop() if len(fitting) == 1 else by_kind
