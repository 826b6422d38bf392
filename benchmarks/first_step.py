"""Run `scripts/train.py` until its first step, and write the instants at which its stages end.

python -m benchmarks.first_step INSTANTS.json scripts/train.py KEY=VALUE ...
"""

import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluoroscope.command import run_one

ENTRY = "fluoroscope.train:main"
# In order; the first starts with the command.
STAGES = (
    "python",
    "configuration",
    "imports",
    "data check",
    "model",
    "trainer, loggers",
    "sanity check",
    "first batch",
    "first step",
)


class Instants:
    """Wall-clock time, which all processes share, at the end of each stage."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.at_s: dict[str, float] = {}

    def end(self, stage: str) -> None:
        self.at_s.setdefault(stage, time.time())

    def after(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, wrapped so that its end is the end of the stage."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            self.end(stage)
            return value

        return timed


def watch(instants: Instants) -> None:
    """Have the command record its instants, and stop after its first step."""
    named = run_one.imported

    def watched(place: str) -> Callable[..., Any]:
        if place != ENTRY:
            return named(place)
        instants.end("configuration")
        entry = named(place)
        instants.end("imports")
        _watch_build(instants)
        return entry

    run_one.imported = watched


def _watch_build(instants: Instants) -> None:
    from fluoroscope import build

    build.build_studies = instants.after("data check", build.build_studies)
    build.build_classifier = instants.after("model", build.build_classifier)
    build_trainer = build.build_trainer

    def with_callback(*args: Any, **kwargs: Any) -> Any:
        trainer: Any = build_trainer(*args, **kwargs)
        trainer.callbacks.append(_until_first_step(instants))
        return trainer

    build.build_trainer = with_callback


def _until_first_step(instants: Instants) -> Any:
    import pytorch_lightning as pl

    class UntilFirstStep(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            instants.end("trainer, loggers")

        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            instants.end("sanity check")

        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            instants.end("first batch")

        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
        ) -> None:
            if pl_module.device.type == "cuda":
                import torch

                torch.cuda.synchronize(pl_module.device)
            instants.end("first step")
            instants.file.write_text(json.dumps(instants.at_s))
            raise SystemExit(0)

    return UntilFirstStep()


if __name__ == "__main__":
    started = Instants(Path(sys.argv[1]))
    started.end("python")
    watch(started)
    script, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_path(script, run_name="__main__")
