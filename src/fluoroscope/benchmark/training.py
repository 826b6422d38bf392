"""A real training without a loader: random images that lie on the device before the first step."""

import copy
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning.callbacks import Callback

from fluoroscope import build
from fluoroscope.benchmark.settings import Job
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.errors import InputError
from fluoroscope.model.classifier import Batch

BATCHES = 4  # different ones, again and again


class Repeated:
    """So many batches out of a few."""

    def __init__(self, batches: list[Batch], length: int) -> None:
        self.batches, self.length = batches, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(itertools.cycle(self.batches), self.length)


class Training:
    """Fits of one and the same model; `build` makes all parts as for a run, weights excepted.

    Args:
        folder: for what the loggers write; W&B is offline.
        processes: that were started for this training.

    Raises:
        InputError: the configuration is of more processes, or fewer.
    """

    def __init__(self, job: Job, folder: Path, processes: int = 1) -> None:
        self.cfg, self.folder = copy.deepcopy(job.train), folder
        trainer = self.cfg.trainer
        trainer.max_epochs, trainer.limit_train_batches = 1, None
        # Every arm pays for a loss at the steps' cadence, and sends W&B what was gathered for it.
        trainer.log_every_n_steps = self.cfg.diagnostics.every_n_steps
        probe = build.build_trainer(self.cfg, folder)
        if probe.world_size != processes:
            raise InputError(
                "a benchmark is of one process; use trainer=auto or trainer=gpu (`scaling` starts "
                "its processes itself)"
            )
        self.device = probe.strategy.root_device
        data = random_data(job)
        # Weights do not change the cost of a step, and random ones need no hub.
        self.model = build.build_classifier(self.cfg, data, pretrained=False)
        self._start = copy.deepcopy(self.model.state_dict())
        self.batches = random_batches(data, self.device)
        self.loggers = build.build_loggers(self.cfg, folder, "offline", "benchmark")

    def restart(self) -> None:
        """The weights of the start: learning so few images by heart would end in denormal numbers,
        which a CPU is slow at, and in alerts.
        """
        self.model.load_state_dict(self._start)

    def fit(self, steps: int, callbacks: list[Callback]) -> None:
        """Train for one epoch of so many optimizer steps."""
        trainer = build.build_trainer(self.cfg, self.folder)
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        trainer.loggers = self.loggers
        batches = Repeated(self.batches, steps * trainer.accumulate_grad_batches)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no `val_dataloader`")
            trainer.fit(self.model, train_dataloaders=batches)


def random_data(job: Job) -> XrayDataModule:
    """A table of random labels; there are no files behind it."""
    data = job.train.data
    labels = data.labels or ["finding"]
    size = BATCHES * data.batch_size
    random = torch.Generator().manual_seed(job.train.seed)
    targets = torch.randint(2, (size, len(labels)), generator=random).numpy()
    table = pd.DataFrame(targets, columns=labels).assign(path="", split="train")
    return XrayDataModule(table, labels, data.image_px, data.batch_size, num_workers=0)


def random_batches(data: XrayDataModule, device: torch.device) -> list[Batch]:
    """The images uint8 `[B, 1, S, S]` of each batch, with its rows of the table."""
    random = torch.Generator().manual_seed(data.seed)
    shape = (data.batch_size, 1, data.image_px, data.image_px)
    rows = torch.arange(BATCHES * data.batch_size).split(data.batch_size)
    target = torch.from_numpy(data.target("train"))
    return [
        {
            "image": torch.randint(256, shape, dtype=torch.uint8, generator=random).to(device),
            "target": target[index].to(device),
            "index": index.to(device),
        }
        for index in rows
    ]
