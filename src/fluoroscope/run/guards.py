"""Keep callbacks of the user's own from spoiling the numbers and the checkpoints of a run."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fluoroscope.diagnostics.keys import GRAD, LAYERS, UNITS
from fluoroscope.errors import InputError, nearest
from fluoroscope.model.score_names import TAKEN, name_of
from fluoroscope.run.csv_logger import STEP, TIME

PLAIN = (str, int, float, bool, complex, bytes, type(None), torch.dtype, torch.device, torch.Size)


def guard(callback: Callback, key: str, scores: Sequence[str]) -> None:
    """Refuse in the hooks of a callback a metric that the run itself logs, or does not know.

    Lightning would mix two numbers of one name, or the callback's would replace the run's.

    Args:
        key: that added the callback, for the refusal.
        scores: import paths of the user's own scores.
    """
    names = "|".join(map(re.escape, (*TAKEN, *map(name_of, scores))))
    own = re.compile(
        rf"({UNITS}|{GRAD}|{LAYERS}|revive)/.*|(val|test)/({names})(/.*)?|train/loss|epoch|{STEP}|{TIME}"
    )
    for name in dir(Callback):
        if name.startswith("on_") and getattr(type(callback), name) is not getattr(Callback, name):
            setattr(callback, name, _guarded(getattr(callback, name), callback, key, own))


def _guarded(
    hook: Callable[..., Any], callback: Any, key: str, own: re.Pattern[str]
) -> Callable[..., Any]:
    @wraps(hook)
    def guarded(trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kw: Any) -> Any:
        try:
            with _own_kept(pl_module, key, own):
                return hook(trainer, pl_module, *args, **kw)
        except (RuntimeError, MisconfigurationException):
            monitor, known = getattr(callback, "monitor", None), trainer.callback_metrics
            if not isinstance(monitor, str) or monitor in known:
                raise
            raise InputError(
                f"{key}.monitor: the run logs no {monitor}{nearest(monitor, known)}; choose a "
                "metric of metrics.csv"
            ) from None

    return guarded


@contextmanager
def _own_kept(module: pl.LightningModule, key: str, own: re.Pattern[str]) -> Iterator[None]:
    log = module.log

    def checked(name: str, *args: Any, **kw: Any) -> None:
        if own.fullmatch(name):
            raise InputError(
                f"{key} logs {name}, which the run logs itself; give it another name, such as "
                f"mine/{name.rpartition('/')[2]}"
            )
        log(name, *args, **kw)

    module.log = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.log


class PlainEntries(pl.Callback):
    """Refuse what another callback puts into a checkpoint, if no command could read it back.

    Checkpoints are read as tensors and plain values alone. It must be the last callback.
    """

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Raise `InputError` at the first checkpoint, not when the run is resumed."""
        _check_plain("checkpoint", checkpoint)


def _check_plain(place: str, node: Any) -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            _check_plain(f"{place}[{name!r}]", value)
    elif isinstance(node, list | tuple | set):
        for value in node:
            _check_plain(place, value)
    elif type(node) not in PLAIN and not isinstance(node, torch.Tensor):
        raise InputError(
            f"{place} is a {type(node).__module__}.{type(node).__name__}, which a resumed run does "
            "not read; let the callback return tensors, numbers and text from its state_dict"
        )
