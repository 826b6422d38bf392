"""Pictures and tables to W&B, which may not answer."""

from collections.abc import Callable
from functools import partial
from threading import Thread

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from fluoroscope.errors import first_sentence

PATIENCE_S = 20.0


def send(trainer: pl.Trainer, what: str, log: Callable[[WandbLogger], None]) -> None:
    """Log something to W&B from the first process; what fails costs a line, not the run.

    A table is an artifact to W&B's client, which asks the server about it and waits. So this
    belongs to the end of a fit.

    Args:
        what: its name in that line.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            problem = _attempt(partial(log, logger))
            if problem is not None:
                print(f"W&B: {what} was not sent ({problem})", flush=True)


def _attempt(call: Callable[[], None]) -> str | None:
    """What went wrong, if anything did."""
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
