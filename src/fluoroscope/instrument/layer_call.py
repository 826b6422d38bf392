"""One call of one activation: its pre-activations are counted, its gradient is received."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from fluoroscope.diagnostics.layer_metrics import LayerMetrics
from fluoroscope.elementwise import gate
from fluoroscope.errors import first_sentence
from fluoroscope.instrument.layout import by_image

_thread = threading.local()


def is_measuring() -> bool:
    """Whether the present call is one of the instrument's own, which nobody counts."""
    return getattr(_thread, "measuring", False)


@contextmanager
def measuring() -> Iterator[None]:
    """Calls within are invisible to every watch and to function modes of others."""
    _thread.measuring = True
    try:
        with torch._C.DisableTorchFunction():
            yield
    finally:
        _thread.measuring = False


@contextmanager
def measuring_safely(note: Callable[[str], None]) -> Iterator[None]:
    """Like `measuring`; an error is noted, since no training may end because it is watched."""
    try:
        with measuring():
            yield
    except Exception as error:
        note(first_sentence(error))


class Layer(LayerMetrics):
    """The metrics of an activation, and how its gradient is received.

    Attributes:
        one_node: whether autograd has one node for it, whose result is dL/dz; None before a call
            with a gradient.
    """

    one_node: bool | None = None


class LayerCall:
    """Receives z before an activation runs, which may overwrite it, and the node of a after it.

    Args:
        layer: counts the pre-activations and the gradient.
        z: pre-activations.
        dim: of the channels in z, see `by_image`.
        note: takes the reason why something was not counted.
    """

    def __init__(self, layer: Layer, z: Tensor, dim: int, note: Callable[[str], None]) -> None:
        self.layer, self.dim, self.note = layer, dim, note
        self.edge: Any = None
        self.gate: Tensor | None = None
        with measuring_safely(note):
            layer.update(*by_image(z.detach(), dim))
            if torch.is_grad_enabled() and z.requires_grad:
                self.edge = get_gradient_edge(z)
                if not layer.one_node:
                    self.gate = gate(layer.activation, z)[1]

    def finish(self, a: Any) -> None:
        """Ask autograd for dL/dz; z may have other uses, whose gradient does not count."""
        if self.edge is None or not isinstance(a, Tensor) or a.grad_fn is None:
            return
        with measuring_safely(self.note):
            node, index = a.grad_fn, self._index(a.grad_fn)
            self.layer.one_node = index is not None
            if index is not None:
                node.register_hook(partial(self._receive, index))
            elif self.gate is not None:
                a.register_hook(partial(self._receive_activation, self.gate))

    def _index(self, node: Any) -> int | None:
        """The place of z among the inputs of a node that is the whole activation."""
        inputs = list(node.next_functions)
        wanted = (self.edge.node, self.edge.output_nr)
        others = [edge for edge in inputs if edge[0] is not None and edge != wanted]
        with_slope = type(node).__name__ == "PreluKernelBackward0"
        if inputs.count(wanted) != 1 or (others and not with_slope):
            return None
        return inputs.index(wanted)

    def _receive(self, index: int, inputs: tuple[Tensor | None, ...], outputs: Any) -> None:
        dz = inputs[index]
        if dz is not None:
            with torch.no_grad(), measuring_safely(self.note):
                self._add(dz)

    def _receive_activation(self, gates: Tensor, da: Tensor) -> None:
        with torch.no_grad(), measuring_safely(self.note):
            self._add(da * gates)

    def _add(self, dz: Tensor) -> None:
        self.layer.add_gradient(*by_image(dz, self.dim))
