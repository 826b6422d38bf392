"""Follow one forward pass of a network through its modules and functions."""

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from fluoroscope.elementwise import Function
from fluoroscope.instrument.discovery import (
    FUNCTIONS,
    KNOWN,
    NO_LAYERS,
    SIGMOIDS,
    Functional,
    is_candidate,
)
from fluoroscope.instrument.layer_call import Layer, LayerCall, is_measuring
from fluoroscope.instrument.layout import Layout

PLAIN = (Tensor, nn.Parameter)
MAX_WIDTHS = 16  # a layer with more of them has no channels in the dimension that was taken


class Frame(NamedTuple):
    """A module that is running."""

    module: nn.Module
    name: str
    is_point: bool  # it, or a module around it, is an activation or a loss: its parts do not count
    call: LayerCall | None


class ForwardPass(TorchFunctionMode):
    """Counts the activations that a network calls while it computes its output.

    Modules are seen by hooks for all modules, functions by PyTorch's function mode; both exist only
    between `start` and `stop`.

    Args:
        names: the network's modules by name.
        find_layer: the metrics of a layer by its name, made from the activation if it is new; None
            if it is not watched.
        is_activation: whether a module of another class than PyTorch's and timm's is one.
        note: takes what cannot be counted, by name and reason.
        layout: knows where the channels are.
    """

    def __init__(
        self,
        names: dict[nn.Module, str],
        find_layer: Callable[[str, Callable[[], Function]], Layer | None],
        is_activation: Callable[[str, nn.Module, Tensor], bool],
        note: Callable[[str, str], None],
        layout: Layout,
    ) -> None:
        super().__init__()
        self.names, self.find_layer = names, find_layer
        self.is_activation, self.note = is_activation, note
        self.running: list[Frame] = []
        self.calls: Counter[str] = Counter()
        self.layout = layout
        self.thread = threading.get_ident()

    def start(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """`module`, the network or a part of it, is about to compute."""
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        self._enter(module, inputs)  # the hook for all modules comes too late for this one
        self.__enter__()

    def stop(self) -> None:
        """The pass has ended, perhaps with an error."""
        self.__exit__(None, None, None)
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if is_measuring() or threading.get_ident() != self.thread:
            return
        name = self.names.get(module)
        if name is None and (type(module) in KNOWN or is_candidate(module)):
            return  # made within forward: its function counts as one of the caller
        is_point, call = self._is_inside_point() or isinstance(module, NO_LAYERS), None
        if name is None and not is_point:
            is_point = True
            self.note(type(module).__name__, "a module that is called, but no part of the network")
        z = inputs[0] if len(inputs) == 1 else None
        if not is_point and isinstance(z, Tensor) and self._is_activation(name or "", module, z):
            is_point, call = True, self._begin(name or "forward", lambda: module, z)
        self.running.append(Frame(module, name or "", is_point, call))

    def _is_inside_point(self) -> bool:
        return bool(self.running) and self.running[-1].is_point

    def _is_activation(self, name: str, module: nn.Module, z: Tensor) -> bool:
        return type(module) in KNOWN or self.is_activation(name, module, z)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if is_measuring() or threading.get_ident() != self.thread:
            return
        if not any(frame.module is module for frame in self.running):
            return
        while (frame := self.running.pop()).module is not module:
            pass  # ended by an error
        if frame.call is not None:
            frame.call.finish(output)
        self.layout.note(module, output)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = FUNCTIONS.get(func)
        frame = self.running[-1] if self.running else None
        if frame is None or frame.is_point or (kind is None and func not in SIGMOIDS):
            return func(*args, **kwargs)
        name = f"{frame.name or 'forward'}/{kind or 'sigmoid'}"
        z, rest = (args[0], args[1:]) if args else (kwargs.get("input"), ())
        if kind is None or not isinstance(z, Tensor):
            self.note(name, "a function that may be a part of an activation, or none")
            return func(*args, **kwargs)
        further = {key: value for key, value in kwargs.items() if key not in ("input", "out")}
        call = self._begin(name, lambda: Functional(func, kind), z, (rest, further))
        a = func(*args, **kwargs)
        if call is not None:
            call.finish(a)
        return a

    def _begin(
        self, name: str, activation: Callable[[], Function], z: Tensor, arguments: Any = None
    ) -> LayerCall | None:
        self.calls[name] += 1
        if self.calls[name] > 1:
            name = f"{name}#{self.calls[name]}"
        layer = self.find_layer(name, activation)
        if layer is None:
            return None
        if arguments is not None:
            layer.activation.args, layer.activation.kwargs = arguments  # type: ignore[union-attr]
        if len(layer.by_width) > MAX_WIDTHS:
            self.note(name, "its number of units changes from call to call")
        elif type(z) not in PLAIN or not z.is_floating_point() or z.layout != torch.strided:
            self.note(name, f"its input is a {type(z).__name__} of {z.dtype}, {z.layout}")
        else:
            parent = self.running[-1].module if self.running else None
            shape = z.shape if z.ndim > 1 else torch.Size([1, z.numel()])
            dim = self.layout.channel_dim(name.partition("#")[0], shape, parent)
            return LayerCall(layer, z, dim, partial(self.note, name))
        return None
