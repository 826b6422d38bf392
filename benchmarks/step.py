"""The cost of Lightning and of the diagnostics: this project's training step against two others.

| arm | step |
| --- | --- |
| `bare` | the same model, loss, parameter groups, AdamW, schedule and precision in a loop by hand |
| `timm` | timm's own step of the same network, see `loops.Timm`: less to do than the others |
| `trainer_unwatched` | this project's trainer and loggers, diagnostics off |
| `trainer` | a run as it is: all diagnostics on |

All arms have the same random images, which lie on the device already: no loader is measured. Every
arm has one block per round, in an order that is drawn anew; speeds are compared within a round.
Peak memory is what a block takes beyond the images, on a CUDA device only. The share of the chip's
peak is that of the step's arithmetic, see `loops.step_flops`.

Examples:
  python -m benchmarks.step trainer=gpu out=gpu.json       # the default run, EfficientNet-B4
  python -m benchmarks.step backbone=lite0                 # the small network, on a CPU
"""

import gc
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.fits import Block, Training
from benchmarks.loops import (
    HALVES,
    Timm,
    peak_bytes,
    peak_flops,
    step_bytes,
    step_flops,
    time_bare,
)
from benchmarks.options import Job, Result, run
from benchmarks.rounds import (
    Column,
    alternate,
    at_least,
    describe_job,
    ratio,
    spread,
    write_and_print,
)
from benchmarks.watchers import MONITOR, callbacks, of_every_run
from fluoroscope.errors import InputError

BARE, TIMM, UNWATCHED, TRAINER = "bare", "timm", "trainer_unwatched", "trainer"
TARGETS = {UNWATCHED: 0.98, TRAINER: 0.97}  # of the images/s of `bare`
B4_IMAGES_S = 1500.0  # EfficientNet-B4 at 380 px, bf16, one H200
COLUMNS = (
    Column("images/s", "median_images_s", ".1f"),
    Column("ms/step", "median_step_ms", ".1f"),
    Column("/ bare", "speed_ratio"),
    Column("CPU", "median_cpu_ratio"),
    Column("peak, GiB", "peak_gib", ".2f"),
    Column("GFLOP/s", "gflop_s", ".0f"),
    Column("of chip", "peak_frac", ".1%"),
    Column("GB/s", "gbyte_s", ".0f"),
    Column("of memory", "memory_frac", ".1%"),
)
NOTE = (
    "/ bare: speed, with quartiles; CPU: the same of processor time; peak: device memory beyond "
    "the images; of chip: share of its peak FLOP/s; GB/s: what the eager operators of `bare` move, "
    "see `loops.step_bytes`, over the time; of memory: share of the chip's bandwidth"
)


class Sample(NamedTuple):
    """A timed block of one arm."""

    block: Block
    peak_gib: float | None  # of device memory; None on a CPU


def measure(job: Job, until: float = math.inf) -> Result:
    """Run all arms; `arms` of the result holds their numbers.

    Args:
        until: no round is begun after this instant of `time.monotonic`.

    Raises:
        InputError: a precision for which there is no loop by hand.
    """
    if job.train.trainer.precision not in ("32-true", *HALVES):
        choices = " or ".join(["32-true", *HALVES])
        raise InputError(f"trainer.precision must be {choices} to be measured")
    with tempfile.TemporaryDirectory() as folder, Training(job, Path(folder)) as training:
        arms = Arms(training)
        for arm in arms.names:  # compilers, autotuners and allocators warm up
            arms.sample(arm)
        samples = alternate(
            arms.names,
            job.benchmark.rounds,
            job.train.seed,
            arms.sample,
            lambda sample: f"{1e3 * sample.block.step_s:.1f} ms",
            until,
        )
        return summarize(job, training, samples)


class Arms:
    """A timed block of each arm, by its name; a frozen backbone has no `timm`."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.timm = None if training.cfg.backbone.frozen else Timm(training)
        self.names = [BARE, *([TIMM] if self.timm else []), UNWATCHED, TRAINER]

    def sample(self, arm: str) -> Sample:
        self.training.restart()
        device = self.training.device
        if device.type != "cuda":
            return Sample(self._block(arm), None)
        gc.collect()  # what earlier fits still hold must not be counted as there before
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        block = self._block(arm)
        return Sample(block, (torch.cuda.max_memory_allocated(device) - before) / 2**30)

    def _block(self, arm: str) -> Block:
        if arm == BARE:
            return time_bare(self.training)
        if arm == TIMM and self.timm is not None:
            return self.timm.time()
        watching = callbacks(MONITOR, self.training) if arm == TRAINER else []
        return self.training.time([*watching, *of_every_run(self.training)])


def summarize(job: Job, training: Training, samples: Mapping[str, list[Sample]]) -> Result:
    """The numbers of all arms, with a description of the training and the machine."""
    facts = describe_job("step", job, training.device)
    device, images = facts["machine"]["device"], training.step_images
    moved = step_bytes(training)
    backbone, head = training.model.backbone.cpu(), training.model.head.cpu()
    image = training.batches[0]["image"][:1].cpu()
    work = Work(
        images,
        images * step_flops(backbone, head, image, job.train.backbone.frozen),
        moved,
        peak_flops(device, job.train.trainer.precision),
        peak_bytes(device),
    )
    numbers = {arm: compare(arm, samples, work) for arm in samples}
    facts |= {"step_flops": work.flops, "step_bytes": moved, "peak_flops": work.peak_flops}
    return facts | {"targets": judge(numbers, facts), "arms": numbers}


class Work(NamedTuple):
    """What an optimizer step has to do, and what the chip can do in a second."""

    images: int
    flops: float
    bytes: float
    peak_flops: float | None
    peak_bytes: float | None


def compare(arm: str, samples: Mapping[str, list[Sample]], work: Work) -> Result:
    """An arm against `bare`."""
    steps_s, bare_s = ([s.block.step_s for s in samples[name]] for name in (arm, BARE))
    cpu_s, bare_cpu_s = ([s.block.step_cpu_s for s in samples[name]] for name in (arm, BARE))
    peaks_gib = [sample.peak_gib for sample in samples[arm] if sample.peak_gib is not None]
    numbers: Result = {
        "images_s": spread([work.images / second for second in steps_s]),
        "step_ms": spread([1e3 * second for second in steps_s]),
        "speed_ratio": ratio(bare_s, steps_s),
        "cpu_speed_ratio": ratio(bare_cpu_s, cpu_s),
        "peak_gib": max(peaks_gib, default=None),
        "steps_ms": [1e3 * second for second in steps_s],
    }
    median_s = numbers["step_ms"]["median"] / 1e3
    flop_s, byte_s = work.flops / median_s, work.bytes / median_s
    return numbers | {
        "median_images_s": numbers["images_s"]["median"],
        "median_step_ms": numbers["step_ms"]["median"],
        "median_cpu_ratio": numbers["cpu_speed_ratio"]["median"],
        "gflop_s": flop_s / 1e9,
        "peak_frac": flop_s / work.peak_flops if work.peak_flops else None,
        "gbyte_s": byte_s / 1e9,
        "memory_frac": byte_s / work.peak_bytes if work.peak_bytes else None,
    }


def judge(numbers: Result, facts: Result) -> list[Result]:
    """The targets that apply to this measurement."""
    targets = [
        at_least(f"{arm} / {BARE}, images/s", numbers[arm]["speed_ratio"]["median"], bound)
        for arm, bound in TARGETS.items()
    ]
    if TIMM in numbers:
        against = ratio(numbers[TIMM]["steps_ms"], numbers[TRAINER]["steps_ms"])["median"]
        targets.append(at_least(f"{TRAINER} / {TIMM}, images/s", against, 1.0))
    question = "efficientnet_b4" in facts["backbone"] and facts["image_px"] == 380
    if question and "H200" in facts["machine"]["device"] and facts["precision"] == "bf16-mixed":
        speed = numbers[TRAINER]["images_s"]["median"]
        targets.append(at_least(f"{TRAINER}, images/s", speed, B4_IMAGES_S))
    return targets


def conclude(job: Job, result: Result) -> None:
    """Write and print the result."""
    write_and_print(job, result, COLUMNS, NOTE)


if __name__ == "__main__":
    run(__doc__ or "", measure, conclude)
