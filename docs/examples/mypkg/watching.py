"""A callback and a logger of your own."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only


class MeanPixel(pl.Callback):
    """Logs `train/mean_pixel`, the mean gray value in [0, 255] of a training batch.

    Args:
        every: batches from one value to the next.

    Attributes:
        batches: seen since the start of the run; a resumed run continues the count.
    """

    def __init__(self, every: int = 10) -> None:
        self.every, self.batches = every, 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.batches += 1
        if self.batches % self.every == 0:
            pl_module.log("train/mean_pixel", batch["image"].float().mean())
            pl_module.log("train/batches", float(self.batches))

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]


class JsonLines(Logger):
    """Writes the configuration, and then one JSON object for each call that logs numbers.

    Args:
        file: a text file, to which a resumed run appends.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = Path(file)

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        self._append({"config": params})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._append({"step": step, **metrics})

    def _append(self, values: Mapping[str, Any]) -> None:
        with self.file.open("a") as opened:
            opened.write(json.dumps(values) + "\n")
