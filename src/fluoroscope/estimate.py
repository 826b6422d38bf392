"""Time and memory of a run before it starts: `scripts/train.py run.estimate=true`."""

import gc
import io
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from fluoroscope import build
from fluoroscope.commands import called
from fluoroscope.config.run_checks import check_estimate
from fluoroscope.config.train import Train
from fluoroscope.console import make_console
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.model.classifier import Batch, Classifier
from fluoroscope.run.device import explain_out_of_memory, settle_device
from fluoroscope.run.preemption import Preemption
from fluoroscope.run.progress import duration, faster_keys
from fluoroscope.run.training_check import epoch_batches, settle_momentum

TRAIN_BATCHES, VAL_BATCHES, WARM_BATCHES = 23, 8, 3
MEASURE_S = 15.0  # of training batches; on a slow machine fewer are measured
MOST_IMAGES = 4096  # largest batch that is tried
GIB = 2**30


class Measured(NamedTuple):
    """Seconds of the parts of a run, as measured."""

    batch_s: float  # a training batch, loader included
    network_s: float  # the same batch when it lies on the device already
    val_batch_s: float
    epoch_end_s: float  # checkpoint, scores and the rest of an epoch's end


def estimate(cfg: Train, several: bool = False) -> float:
    """Measure some batches of the run, and print time, memory and what limits; nothing is kept.

    Args:
        several: the command line names several runs.

    Returns:
        Seconds that the run will take.

    Raises:
        InputError: several runs or processes, cached features, or what the run itself would be
            refused for.
    """
    check_estimate(cfg, several)
    started = time.perf_counter()
    settle_device(cfg)
    build.check_model(cfg)
    studies = build.build_studies(cfg)
    cfg.data.labels = studies.labels
    data = build.build_data(cfg, studies)
    settle_momentum([cfg], data, processes=1)
    model = build.build_classifier(cfg, data, pretrained=False)  # weights do not change the time
    device = build.build_trainer(cfg, Path()).strategy.root_device
    ready_s = time.perf_counter() - started
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself will print them
        if device.type == "cuda":
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(device)
        with explain_out_of_memory(cfg):
            measured = measure(cfg, data, model, device, Path(folder))
        peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
        del model
        times = _times(cfg, data, measured, ready_s)
        for line in _lines(cfg, measured, times, device):
            make_console().print(line, soft_wrap=True)
        if peak is None:
            print("memory  of a GPU only: peak and largest batch are not measured on a CPU")
        else:
            total = torch.cuda.get_device_properties(device).total_memory / GIB
            largest = largest_batch(cfg, data, Path(folder))
            print(
                f"memory  {peak / GIB:.1f} of {total:.0f} GiB; largest data.batch_size: {largest}"
            )
    return times.run_s


class _Clock(pl.Callback):
    """Instants of an epoch; must be the last callback."""

    def __init__(self) -> None:
        self.batches: list[float] = []
        self.val: list[float] = []
        self.end = 0.0

    def _now(self, module: pl.LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        return time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches, self.val = [self._now(pl_module)], []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self.batches.append(self._now(pl_module))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.val = [self._now(pl_module)]

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self.val.append(self._now(pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.end = self._now(pl_module)


def measure(
    cfg: Train, data: XrayDataModule, model: Classifier, device: torch.device, folder: Path
) -> Measured:
    """A short epoch as the run makes it, then as many batches that lie on the device."""
    most = len(data.train_dataloader()), len(data.val_dataloader())
    # The first fit starts compilers and autotuners, and shows how many batches there is time for.
    first = _fit(cfg, (min(3, most[0]), 1), model, folder, datamodule=data)
    count = WARM_BATCHES + int(MEASURE_S / mean_s(first.batches[-2:]))
    counts = min(most[0], max(4, min(TRAIN_BATCHES, count))), min(most[1], VAL_BATCHES)
    whole = _fit(cfg, counts, model, folder, datamodule=data)
    warm = min(WARM_BATCHES, counts[0] - 1)
    batch = next(iter(data.evaluation_dataloader("train")))
    batch = {key: part.to(device) for key, part in batch.items()}
    in_memory = _repeated(batch, counts[0])
    memory = _fit(cfg, counts, model, folder, train_dataloaders=in_memory)
    end_s = whole.end - whole.batches[-1] - (whole.val[-1] - whole.val[0])
    return Measured(
        mean_s(whole.batches[warm:]), mean_s(memory.batches[warm:]), mean_s(whole.val), end_s
    )


def mean_s(instants: Sequence[float]) -> float:
    """Mean distance between neighbours.

    >>> mean_s([1.0, 2.0, 4.0])
    1.5
    """
    return (instants[-1] - instants[0]) / (len(instants) - 1)


def _fit(
    cfg: Train, counts: tuple[int, int], model: Classifier, folder: Path, **batches: Any
) -> _Clock:
    """One epoch with a run's own callbacks and loggers, which print nothing.

    Args:
        counts: training and validation batches.
    """
    short = cfg.copy()  # type: ignore[attr-defined]
    short.trainer.max_epochs, short.run.patience = 1, None
    short.trainer.limit_train_batches, short.trainer.limit_val_batches = counts
    short.head.bias_init = None  # which would look at the data once more
    short.loggers = {}
    clock = _Clock()
    with Preemption().listening() as preemption, redirect_stdout(io.StringIO()):
        saving = build.build_saving(short, folder, dict, preemption)
        trainer = build.build_trainer(short, folder, build.build_watchers(short, folder), saving)
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        trainer.loggers = build.build_loggers(short, folder, "off", "estimate")
        trainer.fit(model, **batches)
    return clock


def largest_batch(cfg: Train, data: XrayDataModule, folder: Path) -> int:
    """The largest batch, to a sixteenth and at most 4,096, whose training step fits."""

    def fits(size: int) -> bool:
        short = cfg.copy()  # type: ignore[attr-defined]
        short.data.batch_size, short.backbone.compile = size, False
        fitted, model, in_memory = True, None, None  # the last two hold memory of the device
        try:
            model = build.build_classifier(short, data, pretrained=False)
            in_memory = _repeated(_drawn(short, data), 2)
            _fit(short, (2, 1), model, folder, train_dataloaders=in_memory)
        except RuntimeError:  # also what cuDNN and cuBLAS say instead of "out of memory"
            if size <= cfg.data.batch_size:
                raise
            fitted = False
        del model, in_memory
        gc.collect()  # a trainer is a cycle, which holds tensors of the device
        torch.cuda.empty_cache()
        return fitted

    low, high = 0, 8
    while high <= MOST_IMAGES and fits(high):
        low, high = high, 2 * high
    while high - low > 8 and high - low > low // 16:
        middle = (low + high) // 16 * 8
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _repeated(batch: Batch, count: int) -> DataLoader:
    """A loader of the same batch, which lies where it is."""
    return DataLoader([batch] * count, batch_size=None)  # type: ignore[arg-type]


def _drawn(cfg: Train, data: XrayDataModule) -> Batch:
    """A batch of noise with the labels' number."""
    size, side = cfg.data.batch_size, cfg.data.image_px
    return {
        "image": torch.randint(256, (size, 1, side, side), dtype=torch.uint8),
        "target": torch.randint(2, (size, len(data.labels))).float(),
        "index": torch.arange(size),
    }


class _Times(NamedTuple):
    """Seconds of a whole epoch, of its validation, and of the run."""

    epoch_s: float
    val_s: float
    run_s: float


def _times(cfg: Train, data: XrayDataModule, measured: Measured, ready_s: float) -> _Times:
    train, val, test = (epoch_batches(cfg, data, split, 1) for split in ("train", "val", "test"))
    train_s = train * measured.batch_s
    val_s, test_s = val * measured.val_batch_s, test * measured.val_batch_s
    epoch_s = train_s + val_s + measured.epoch_end_s
    return _Times(epoch_s, val_s, ready_s + cfg.trainer.max_epochs * epoch_s + val_s + test_s)


def _lines(cfg: Train, measured: Measured, times: _Times, device: torch.device) -> list[str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    size, waiting = cfg.data.batch_size, 1 - measured.network_s / measured.batch_s
    limit = "the network limits"
    if waiting > 0.1:
        limit = (
            f"the loader limits, {waiting:.0%} of the time: raise data.num_workers, or train on a "
            f"copy by {called('prepare')}"
        )
    elif device.type == "cpu" and (keys := faster_keys(cfg)):
        limit += f"; shorter: {' or '.join(keys)}"
    return [
        f"{cfg.backbone.name}, {cfg.data.image_px} px, batch {size}, {cfg.trainer.precision}, "
        f"on {name}",
        f"batch   {1e3 * measured.batch_s:.0f} ms, {size / measured.batch_s:.0f} images/s; "
        f"the network alone {1e3 * measured.network_s:.0f} ms: {limit}",
        f"epoch   {duration(times.epoch_s)}, {duration(times.val_s)} of it validation",
        f"run     {duration(times.run_s)} for {cfg.trainer.max_epochs} epochs",
    ]
