"""The hooks on a watched network; a copy of the network has ones that do nothing."""

import sys
import weakref
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fluoroscope.instrument.discovery import NO_LAYERS

UNHOOKED = (torch.jit.ScriptModule, *NO_LAYERS)


class Watcher(Protocol):
    """Learns of each call of the network, or of a child that is called alone."""

    def on_enter(self, module: nn.Module, inputs: tuple[Any, ...], frame: FrameType) -> None:
        """`module` is about to run; `frame` ends when it has returned."""

    def on_leave(self, module: nn.Module) -> None:
        """`module` has returned, or has raised an error."""


class EntryHook:
    """Tells the watcher; copies and pickles of it are told nobody."""

    def __init__(self, watcher: Watcher | None = None, leaves: bool = False) -> None:
        self.watcher = None if watcher is None else weakref.ref(watcher)
        self.leaves = leaves

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], *output: Any) -> None:
        if torch.compiler.is_compiling() or self.watcher is None:
            return
        watcher = self.watcher()
        if watcher is not None and self.leaves:
            watcher.on_leave(module)
        elif watcher is not None:
            watcher.on_enter(module, inputs, sys._getframe(1))

    def __deepcopy__(self, memo: Any) -> "EntryHook":
        return EntryHook()

    def __reduce__(self) -> Any:
        return EntryHook, ()


def hook(model: nn.Module, watcher: Watcher) -> list[RemovableHandle]:
    """Hooks on the network, and on its children, since a method other than forward calls them."""
    handles = []
    for module in (model, *entries(model)):
        handles.append(module.register_forward_pre_hook(EntryHook(watcher)))
        end = EntryHook(watcher, leaves=True)
        # Of two watches the later one ends first.
        handles.append(module.register_forward_hook(end, prepend=True, always_call=True))
    return handles


def entries(model: nn.Module) -> list[nn.Module]:
    """The children that can be called; those of a list or a dict in its place."""
    found: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            found += entries(child)
        elif not isinstance(child, UNHOOKED) and child._compiled_call_impl is None:
            found.append(child)
    return list(dict.fromkeys(found))
