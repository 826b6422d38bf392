"""Timed fits of a real training, on random images that lie on the device before the first step."""

import copy
import itertools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from benchmarks.options import Job
from fluoroscope import build
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.errors import InputError
from fluoroscope.launch.process_setup import quiet_lightning
from fluoroscope.model.classifier import Batch
from fluoroscope.run import wandb_logger
from fluoroscope.run.training_check import settle_momentum

BATCHES = 4  # different ones, repeated


class Instant(NamedTuple):
    """Readings of two clocks; only differences between them mean anything."""

    wall_s: float
    cpu_s: float


class Block(NamedTuple):
    """One timed fit of one arm."""

    step_s: float  # mean over the timed optimizer steps
    end_s: float  # from the end of the last batch to the end of training
    step_cpu_s: float  # processor time of this process, all threads


def now(device: torch.device) -> Instant:
    """Both clocks, read when the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Instant(time.perf_counter(), time.process_time())


def block_between(first: Instant, last: Instant, steps: int, end: Instant) -> Block:
    """The block whose timed steps lie between two instants."""
    step_s, cpu_s = (last.wall_s - first.wall_s) / steps, (last.cpu_s - first.cpu_s) / steps
    return Block(step_s, end.wall_s - last.wall_s, cpu_s)


class Clock(pl.Callback):
    """Times a fit of one epoch; must be the last callback.

    A step lasts from the end of one batch to the end of the next, so it includes everything that
    happens between two batches. The timed steps follow the warm-up and end with the epoch.

    Args:
        warmup: optimizer steps before the clock starts.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self._first = self._last = Instant(0.0, 0.0)
        self.block = Block(0.0, 0.0, 0.0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        if i + 1 == self.warmup * trainer.accumulate_grad_batches:
            self._first = now(pl_module.device)
        elif i + 1 == trainer.num_training_batches:
            self._last = now(pl_module.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = trainer.global_step - self.warmup
        self.block = block_between(self._first, self._last, steps, now(pl_module.device))


class Repeated:
    """A given number of batches, by repeating a few."""

    def __init__(self, batches: list[Batch], length: int) -> None:
        self.batches, self.length = batches, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(itertools.cycle(self.batches), self.length)


class Training:
    """Fits of one model, whose parts `build` makes as for a run; the weights are random.

    A context manager: it closes the loggers.

    Args:
        folder: for the files of the loggers; W&B is offline.
        processes: number that was started for this training.

    Raises:
        InputError: the configuration asks for another number of processes.
    """

    def __init__(self, job: Job, folder: Path, processes: int = 1) -> None:
        quiet_lightning()
        self.cfg, self.folder, self.options = copy.deepcopy(job.train), folder, job.benchmark
        trainer = self.cfg.trainer
        trainer.max_epochs, trainer.limit_train_batches = 1, None
        # Every arm pays for a loss at this cadence, and sends to W&B what was gathered by then.
        trainer.log_every_n_steps = self.cfg.diagnostics.every_n_steps
        probe = build.build_trainer(self.cfg, folder)
        if probe.world_size != processes:
            raise InputError(
                "a benchmark runs in one process; use trainer=auto or trainer=gpu (`scaling` "
                "starts its own processes)"
            )
        self.device = probe.strategy.root_device
        data = random_data(job)
        settle_momentum([self.cfg], data, processes)
        # Weights do not change the cost of a step, and random ones need no hub.
        self.model = build.build_classifier(self.cfg, data, pretrained=False)
        self._start = copy.deepcopy(self.model.state_dict())
        self.batches = random_batches(data, self.device)
        self.loggers = build.build_loggers(self.cfg, folder, "offline", "benchmark")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        wandb_logger.finish(0)

    @property
    def step_images(self) -> int:
        """Images of an optimizer step."""
        return self.cfg.data.batch_size * self.cfg.trainer.accumulate_grad_batches

    def restart(self) -> None:
        """Load the initial weights.

        A network that has learnt so few images by heart computes with denormal numbers, which are
        slow on a CPU, and raises alerts.
        """
        self.model.load_state_dict(self._start)

    def fit(self, steps: int, callbacks: list[Callback]) -> None:
        """Train for one epoch of this many optimizer steps."""
        trainer = build.build_trainer(self.cfg, self.folder)
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        trainer.loggers = self.loggers
        batches = Repeated(self.batches, steps * trainer.accumulate_grad_batches)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no `val_dataloader`")
            trainer.fit(self.model, train_dataloaders=batches)

    def time(self, callbacks: list[Callback]) -> Block:
        """A fit of `benchmark.warmup` untimed and `benchmark.steps` timed steps."""
        clock = Clock(self.options.warmup)
        self.fit(self.options.warmup + self.options.steps, [*callbacks, clock])
        return clock.block


def random_data(job: Job) -> XrayDataModule:
    """A table of random labels, without files."""
    data = job.train.data
    labels = data.labels or ["finding"]
    size = BATCHES * data.batch_size
    random = torch.Generator().manual_seed(job.train.seed)
    targets = torch.randint(2, (size, len(labels)), generator=random).numpy()
    table = pd.DataFrame(targets, columns=labels).assign(path="", split="train")
    return XrayDataModule(table, labels, data.image_px, data.batch_size, num_workers=0)


def random_batches(data: XrayDataModule, device: torch.device) -> list[Batch]:
    """Batches of random images, uint8 `[B, 1, S, S]`, with the labels of the table."""
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
