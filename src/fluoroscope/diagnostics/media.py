"""Send pictures, tables, histograms and alerts to W&B; other loggers do not receive them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Thread
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from fluoroscope.errors import first_sentence

PATIENCE_S = 20.0


def send(trainer: pl.Trainer, what: str, log: Callable[[WandbLogger], None]) -> None:
    """Log something to W&B from the first process; print a line if that fails, and continue.

    W&B's client stores a table as an artifact, asks the server about it and waits for the answer,
    so call this at the end of a fit.

    Args:
        what: what is sent, for that line.
    """
    for logger in _wandb_loggers(trainer):
        problem = _attempt(partial(log, logger))
        if problem is not None:
            print(f"W&B: {what} was not sent ({problem})", flush=True)


def log_histograms(trainer: pl.Trainer, values: Mapping[str, Tensor]) -> None:
    """Log the distribution of each tensor by its key; one device sync per tensor."""
    loggers = list(_wandb_loggers(trainer))
    if not loggers:
        return
    from wandb import Histogram

    entry: dict[str, Any] = {k: Histogram(np_histogram=histogram(v)) for k, v in values.items()}
    for logger in loggers:
        logger.experiment.log({**entry, "trainer/global_step": trainer.global_step - 1})


def histogram(values: Tensor, bins: int = 64) -> tuple[Any, Any]:
    """Counts and edges of the finite values as numpy arrays."""
    import numpy as np

    numbers = values.detach().double().cpu().numpy()  # float32 cannot divide every range into bins
    return np.histogram(numbers[np.isfinite(numbers)], bins=bins)


def alert(logger: WandbLogger, title: str, text: str, level: Literal["WARN", "ERROR"]) -> None:
    """Show a message in W&B; the title must have fewer than 64 characters."""
    logger.experiment.alert(title=title, text=text, level=level)


def log_alert(trainer: pl.Trainer, title: str, text: str) -> None:
    """Send a warning to W&B from the first process."""
    for logger in _wandb_loggers(trainer):
        alert(logger, title, text, "WARN")


def _wandb_loggers(trainer: pl.Trainer) -> Iterator[WandbLogger]:
    """W&B's loggers on the first process; none on the others."""
    if trainer.is_global_zero:
        yield from (logger for logger in trainer.loggers if isinstance(logger, WandbLogger))


def _attempt(call: Callable[[], None]) -> str | None:
    """Run `call`; return the reason if it fails, else None."""
    problem: list[str | None] = [f"no answer within {PATIENCE_S:.0f} s"]

    def run() -> None:
        try:
            call()
            problem[0] = None
        except Exception as error:  # the client raises its own, pydantic's and the socket's
            problem[0] = first_sentence(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return problem[0]
