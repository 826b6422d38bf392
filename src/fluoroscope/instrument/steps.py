"""The optimizer steps that use a watched network's gradient."""

import weakref
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle


class StepWatcher(Protocol):
    """Learns of each gradient that an optimizer uses."""

    def on_gradient(self, optimizer: Optimizer) -> None:
        """The gradient is complete, and the optimizer is about to use it."""


def hook_steps(watcher: StepWatcher) -> RemovableHandle:
    """A hook of all optimizers, which does not keep the watcher alive.

    An optimizer with a closure computes the gradient within its step, as it does in Lightning and
    for LBFGS: the watcher is told at the end of each closure.
    """
    reference = weakref.ref(watcher)

    def tell(optimizer: Optimizer) -> None:
        found = reference()
        if found is not None:
            found.on_gradient(optimizer)

    def before_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if torch.compiler.is_compiling():
            return None
        if not callable(closure):
            tell(optimizer)
            return None

        def watched(*inputs: Any, **keys: Any) -> Any:
            loss = closure(*inputs, **keys)
            tell(optimizer)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    return register_optimizer_step_pre_hook(before_step)
