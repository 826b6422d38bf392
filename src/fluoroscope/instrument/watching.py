"""Watch the activations of any network: the handle that `fluoroscope.watch` returns."""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fluoroscope.elementwise import Function
from fluoroscope.instrument.calls import Calls
from fluoroscope.instrument.discovery import (
    UNSEEN_MODULES,
    is_activation,
    is_candidate,
    names_of,
)
from fluoroscope.instrument.entry_hooks import hook
from fluoroscope.instrument.forward_pass import ForwardPass
from fluoroscope.instrument.layer_call import Layer, measuring, measuring_safely
from fluoroscope.instrument.layout import Layout
from fluoroscope.instrument.python_stack import is_running
from fluoroscope.instrument.reading import Reading
from fluoroscope.instrument.refusals import (
    check_dims,
    check_layers,
    check_model,
    check_numbers,
    check_patterns,
)
from fluoroscope.instrument.steps import hook_steps
from fluoroscope.instrument.windows import Window, WindowSums, over_processes
from fluoroscope.instrument.without_compiler import WithoutCompiler


class Units(Reading):
    """The units of a watched network; `fluoroscope.watch` makes it and explains it.

    Attributes:
        counting: False leaves calls uncounted.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] = "*",
        every_n_calls: int = 1,
        tolerance: float = 1e-6,
        channel_dims: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        check_model(model)
        check_numbers(every_n_calls, tolerance)
        inner: Any = model.module if isinstance(model, DistributedDataParallel) else model
        self._named: nn.Module = getattr(inner, "_orig_mod", inner)
        self.patterns = check_layers(layers)
        check_patterns(self.patterns, self._names(), "layers")
        self.model_name = type(self._named).__name__
        self.tolerance, self.counting = tolerance, True
        self.channel_dims = check_dims({} if channel_dims is None else channel_dims)
        check_patterns(self.channel_dims, self._names(), "channel_dims")
        self._model, self._explicit = inner, ""
        self._windows: dict[str, Window] = {}
        self._tried: dict[nn.Module, bool] = {}
        self._calls = Calls(inner, every_n_calls)
        # Training calls that were counted when an optimizer last used its gradient.
        self._used: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self._entered: list[tuple[nn.Module, FrameType]] = []
        self._pass: ForwardPass | None = None
        self._lock, self._thread = threading.Lock(), 0
        # By thread, a call that is not counted, since another thread had begun one.
        self._refused: dict[int, tuple[nn.Module, FrameType]] = {}
        self._without_compiler = WithoutCompiler()
        self._note_unseen_modules()
        self._handles: list[Any] = hook(inner, self)
        self._handles.append(hook_steps(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # what holds it, such as a trainer, may be copied; a copy would watch nothing

    @property
    def is_open(self) -> bool:
        """Whether it still watches."""
        return bool(self._handles)

    def close(self) -> None:
        """Stop watching, and remove all hooks; the numbers can still be read."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._entered = [], []
        self._stop()

    @contextmanager
    def window(self, name: str) -> Iterator[None]:
        """Calls within are counted in the window of this name, in place of `train` or `eval`."""
        before, self._explicit = self._explicit, name
        try:
            yield
        finally:
            self._explicit = before

    def reset(self, window: str | None = None) -> None:
        """Start a window anew, or all of them; the gate-open shares are kept for `plot`."""
        for name, sums in self._sums().items():
            if window in (None, name):
                self._remember(name, sums)
                self._windows.pop(name, None)

    def on_enter(self, module: nn.Module, inputs: tuple[Any, ...], frame: FrameType) -> None:
        """The network, or a child that is called alone, is about to run."""
        # A number other than -1 means a backward pass, which repeats checkpointed blocks.
        if torch._C._current_graph_task_id() != -1 or torch.jit.is_tracing():
            return
        if torch._C._functorch.peek_interpreter_stack() is not None:
            self._note(self.model_name, "a call within torch.func")
            return
        if not self._claim(module, frame):
            self._note(self.model_name, "a call while another thread called it")
            return
        if self._pass is not None and module is self._model:
            self._pass.calls.clear()  # it was called from within, as Lightning does under DDP
        elif len(self._entered) == 1 and self._calls.begin(module) and self.counting:
            self._start(module, inputs, frame)

    def on_leave(self, module: nn.Module) -> None:
        """It has returned, or has raised an error."""
        me = threading.get_ident()
        if me in self._refused and self._refused[me][0] is module:
            del self._refused[me]
        if self._thread != me or not any(module is m for m, _ in self._entered):
            return
        while self._entered[-1][0] is not module:
            self._entered.pop()
        if len(self._entered) == 1:
            self._stop()  # before another thread can start
        self._entered.pop()

    def _claim(self, module: nn.Module, frame: FrameType) -> bool:
        """Note that it was entered, unless another thread is in a call of the network, or was when
        the call began of which this one is a part.
        """
        me = threading.get_ident()
        with self._lock:
            self._drop_interrupted()
            if me in self._refused and is_running(self._refused[me][1], me):
                return False
            if self._entered and self._thread != me:
                self._refused[me] = module, frame
                return False
            self._thread = me
            self._entered.append((module, frame))
        return True

    def _drop_interrupted(self) -> None:
        """Forget calls that Ctrl-C has ended, of which no hook is told."""
        entered = self._entered
        while entered and not is_running(entered[-1][1], self._thread):
            entered.pop()
            if not entered:
                self._stop()

    def _start(self, module: nn.Module, inputs: tuple[Any, ...], frame: FrameType) -> None:
        names = self._names()
        names.setdefault(self._model, "")
        self._current.calls += 1
        self._calls.training += self._model.training
        self._without_compiler.__enter__()  # compiled parts cannot be followed
        layout = Layout(self.channel_dims)
        self._pass = ForwardPass(names, self._find_layer, self._is_activation, self._note, layout)
        if not self._calls.is_layer(module):
            self._pass.calls = self._calls.names
        self._pass.start(module, inputs, frame)

    def _stop(self) -> None:
        if self._pass is not None:
            self._pass.stop()
            self._pass = None
            self._without_compiler.__exit__()

    def on_gradient(self, optimizer: Optimizer) -> None:
        """An optimizer is about to use the gradient, of a call that was counted or of others."""
        window = self._windows.get(self._explicit or "train")
        if window is None or self._used.get(optimizer, 0) == self._calls.training:
            return
        self._used[optimizer] = self._calls.training
        own = {id(p) for p in self._model.parameters()}
        groups = (group["params"] for group in optimizer.param_groups)
        parameters = [p for group in groups for p in group if id(p) in own and p.grad is not None]
        if parameters:
            note = partial(self._note, "gradient of the weights")
            with torch.no_grad(), measuring_safely(note):
                window.add_step(parameters, getattr(optimizer, "grad_scale", None))

    @property
    def _current(self) -> Window:
        name = self._explicit or ("train" if self._model.training else "eval")
        return self._windows.setdefault(name, Window())

    def _names(self) -> dict[nn.Module, str]:
        return names_of(self._named)

    def _find_layer(self, name: str, activation: Callable[[], Function]) -> Layer | None:
        base = name.partition("#")[0]
        if not any(fnmatchcase(n, p) for n in (name, base) for p in self.patterns):
            self._passed_over[base] = None
            return None
        layers, phi = self._current.layers, activation()
        if name not in layers or layers[name].activation != phi:  # one that was replaced is new
            layers[name] = Layer(phi, self.tolerance, blackouts=True)
        return layers[name]

    def _is_activation(self, name: str, module: nn.Module, z: Tensor) -> bool:
        if module not in self._tried:
            wanted = any(fnmatchcase(name, pattern.partition("#")[0]) for pattern in self.patterns)
            candidate = wanted and module is not self._named and is_candidate(module)
            with measuring():
                self._tried[module] = candidate and is_activation(module, z)
        return self._tried[module]

    def _note_unseen_modules(self) -> None:
        for module, name in self._names().items():
            for cls, why in UNSEEN_MODULES.items():
                if isinstance(module, cls):
                    self._note(name, why)

    def _sums(self) -> dict[str, WindowSums]:
        return over_processes({name: window.sums() for name, window in self._windows.items()})
