"""Follow one forward pass of a network through its modules and functions."""

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

from fluoroscope.elementwise import Function
from fluoroscope.errors import InputError
from fluoroscope.instrument.discovery import (
    FUNCTIONS,
    KNOWN,
    NO_LAYERS,
    UNCLEAR,
    UNSEEN_MODULES,
    Functional,
    is_candidate,
    why_unclear,
)
from fluoroscope.instrument.layer_call import Layer, LayerCall, is_measuring
from fluoroscope.instrument.layout import Layout
from fluoroscope.instrument.python_stack import is_running

NO_PARTS = (*NO_LAYERS, *UNSEEN_MODULES)  # their parts do not count
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

    def start(self, module: nn.Module, inputs: tuple[Any, ...], frame: FrameType) -> None:
        """`module`, the network or a part of it, is about to compute until `frame` ends."""
        self.frame = frame
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        self._enter(module, inputs)  # the hook for all modules comes too late for this one
        self.__enter__()

    def stop(self) -> None:
        """The pass has ended, perhaps with an error."""
        _leave_mode(self)
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self._is_mine():
            return
        name = self.names.get(module)
        if name is None and (type(module) in KNOWN or is_candidate(module)):
            return  # made within forward: its function counts as one of the caller
        is_point, call = self._is_inside_point() or isinstance(module, NO_PARTS), None
        if name is None and not is_point:
            is_point = True
            self.note(type(module).__name__, "a module that is called, but no part of the network")
        z = inputs[0] if len(inputs) == 1 else None
        if not is_point and isinstance(z, Tensor) and self._is_activation(name or "", module, z):
            is_point, call = True, self._begin(name or "forward", lambda: module, z)
        self.running.append(Frame(module, name or "", is_point, call))

    def _is_mine(self) -> bool:
        """Whether a call is one of this pass, which Ctrl-C may have ended."""
        return (
            not is_measuring()
            and threading.get_ident() == self.thread
            and is_running(self.frame, self.thread)
        )

    def _is_inside_point(self) -> bool:
        return bool(self.running) and self.running[-1].is_point

    def _is_activation(self, name: str, module: nn.Module, z: Tensor) -> bool:
        return type(module) in KNOWN or self.is_activation(name, module, z)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self._is_mine():
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
        if frame is None or frame.is_point or (kind is None and func not in UNCLEAR):
            return func(*args, **kwargs)
        z, rest = (args[0], args[1:]) if args else (kwargs.get("input"), ())
        if not (self._is_mine() and isinstance(z, Tensor)):
            return func(*args, **kwargs)
        name = f"{frame.name or 'forward'}/{kind or UNCLEAR[func]}"
        if kind is None:
            if z.is_floating_point() and (why := why_unclear(func, args, kwargs)):
                self.note(name, why)
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
        parent = self.running[-1].module if self.running else None
        try:
            _check_countable(z, layer)
            dim = self.layout.channel_dim(name.partition("#")[0], z.shape, parent)
        except InputError as error:
            self.note(name, str(error))
            return None
        return LayerCall(layer, z, dim, partial(self.note, name))


def _check_countable(z: Tensor, layer: Layer) -> None:
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise InputError("a call within torch.func")
    if type(z) is nn.Parameter:
        raise InputError("its input is a parameter, so it is a part of the weights")
    if type(z) is not Tensor or not z.is_floating_point() or z.layout != torch.strided:
        raise InputError(f"its input is a {type(z).__name__} of {z.dtype}, {z.layout}")
    if len(layer.by_width) > MAX_WIDTHS:
        raise InputError("its number of units changes from call to call")


def _leave_mode(mode: TorchFunctionMode) -> None:
    """End a function mode, also one below modes that were entered after Ctrl-C."""
    if not any(other is mode for other in _get_current_function_mode_stack()):
        return  # it was one of a thread that has ended
    above = []
    while (top := _pop_mode()) is not mode:
        above.append(top)
    for other in reversed(above):
        _push_mode(other)
