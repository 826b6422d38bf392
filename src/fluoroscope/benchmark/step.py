"""What Lightning and the diagnostics cost: this project's training step against two others.

| arm | is |
| --- | --- |
| `bare` | the same model, loss, parameter groups, AdamW, schedule and precision in a loop by hand |
| `timm` | timm's own step of the same network, see `loops.Timm`: less to do than the others |
| `trainer_unwatched` | this project's trainer and loggers, diagnostics off |
| `trainer` | a run as it is: all diagnostics on |

All have the same random images, which lie on the device already: no loader is in the measurement.
In each round every arm has one block, in an order that is drawn anew; speeds are compared within a
round. Peak memory is what a block takes beyond what lay on the device before it (the images), of a
CUDA device alone. The share of the chip's peak is that of the step's arithmetic, see `flops`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from pytorch_lightning.callbacks import Callback

from fluoroscope.benchmark.arms import MONITOR, callbacks, of_every_run
from fluoroscope.benchmark.flops import peak_flops, step_flops
from fluoroscope.benchmark.loops import HALVES, Timm, bare
from fluoroscope.benchmark.rounds import (
    Result,
    alternate,
    at_least,
    conclude,
    console,
    described,
    place,
    ratio,
    table,
)
from fluoroscope.benchmark.settings import Job
from fluoroscope.benchmark.timing import Block, Clock, spread
from fluoroscope.benchmark.training import Training
from fluoroscope.errors import InputError
from fluoroscope.run import loggers
from fluoroscope.train import hush

BARE, TIMM, UNWATCHED, TRAINER = "bare", "timm", "trainer_unwatched", "trainer"
TARGET = 0.98  # trainer / bare, images a second
B4_IMAGES_S = 1500.0  # EfficientNet-B4 at 380 px, bf16, one H200


class Sample(NamedTuple):
    """A timed block of one arm."""

    block: Block
    peak_gib: float | None  # of device memory; None on a CPU


def main(job: Job) -> None:
    """Entry of `scripts/benchmark.py step`."""
    hush()
    result = measure(job)
    conclude(job, result, print_result)


def measure(job: Job) -> Result:
    """Run all arms.

    Returns:
        What the JSON file holds; `arms` has the numbers.

    Raises:
        InputError: a precision for which there is no loop by hand.
    """
    if job.train.trainer.precision not in ("32-true", *HALVES):
        choices = " or ".join(["32-true", *HALVES])
        raise InputError(f"trainer.precision must be {choices} to be measured")
    with tempfile.TemporaryDirectory() as folder:
        training = Training(job, Path(folder))
        arms = Arms(training, job)
        try:
            for arm in arms.names:  # compilers, autotuners and allocators warm up
                arms.sample(arm)
            samples = alternate(
                arms.names,
                job.benchmark.rounds,
                job.train.seed,
                arms.sample,
                lambda sample: f"{1e3 * sample.block.step_s:.1f} ms",
            )
        finally:
            loggers.finish(0)
    return conclusions(job, training, samples)


class Arms:
    """A block of each arm, by its name; a frozen backbone has no `timm`."""

    def __init__(self, training: Training, job: Job) -> None:
        self.training, self.job = training, job
        self.timm = None if training.cfg.backbone.frozen else Timm(training)
        self.names = [BARE, *([TIMM] if self.timm else []), UNWATCHED, TRAINER]

    def sample(self, arm: str) -> Sample:
        self.training.restart()
        device = self.training.device
        if device.type != "cuda":
            return Sample(self._block(arm), None)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        block = self._block(arm)
        return Sample(block, (torch.cuda.max_memory_allocated(device) - before) / 2**30)

    def _block(self, arm: str) -> Block:
        warmup = self.job.benchmark.warmup
        steps = warmup + self.job.benchmark.steps
        if arm == BARE:
            return bare(self.training, steps, warmup)
        if arm == TIMM and self.timm is not None:
            self.timm.restart()
            return self.timm.fit(steps, warmup)
        watching = callbacks(MONITOR, self.training) if arm == TRAINER else []
        return fit(self.training, steps, warmup, watching)


def fit(training: Training, steps: int, warmup: int, watching: list[Callback]) -> Block:
    """A timed fit by this project's trainer, with all that a run does in its steps."""
    clock = Clock(warmup)
    training.fit(steps, [*watching, *of_every_run(training), clock])
    return clock.block


def conclusions(job: Job, training: Training, samples: Mapping[str, list[Sample]]) -> Result:
    """The numbers of all arms, with what was measured, on what."""
    cfg = job.train
    base = described("step", job, training.device)
    images = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
    backbone, head = training.model.backbone.cpu(), training.model.head.cpu()
    image = training.batches[0]["image"][:1].cpu()
    flops = images * step_flops(backbone, head, image, cfg.backbone.frozen)
    peak = peak_flops(base["machine"]["device"], cfg.trainer.precision)
    numbers = {arm: compare(arm, samples, images, flops, peak) for arm in samples}
    base |= {"steps": job.benchmark.steps, "step_flops": flops, "peak_flops": peak}
    return base | {"targets": judge(numbers, base), "arms": numbers}


def compare(
    arm: str, samples: Mapping[str, list[Sample]], images: int, flops: float, peak: float | None
) -> Result:
    """An arm against `bare`.

    Args:
        images: of an optimizer step.
        flops: of its arithmetic.
        peak: FLOP/s of the chip.
    """
    steps_s = [sample.block.step_s for sample in samples[arm]]
    bare_s = [sample.block.step_s for sample in samples[BARE]]
    cpu_s = [sample.block.step_cpu_s for sample in samples[arm]]
    bare_cpu_s = [sample.block.step_cpu_s for sample in samples[BARE]]
    reached = [flops / second for second in steps_s]
    return {
        "images_s": spread([images / second for second in steps_s])._asdict(),
        "step_ms": spread([1e3 * second for second in steps_s])._asdict(),
        "speed_ratio": ratio(bare_s, steps_s)._asdict(),
        "cpu_speed_ratio": ratio(bare_cpu_s, cpu_s)._asdict(),
        "peak_gib": _largest(samples[arm]),
        "flops_s": spread(reached)._asdict(),
        "peak_frac": None if peak is None else spread([f / peak for f in reached])._asdict(),
        "steps_ms": [1e3 * second for second in steps_s],
    }


def _largest(samples: list[Sample]) -> float | None:
    return max((s.peak_gib for s in samples if s.peak_gib is not None), default=None)


def judge(numbers: Result, base: Result) -> list[Result]:
    """The targets that this measurement can meet or miss."""

    def median(arm: str, key: str) -> float:
        return numbers[arm][key]["median"]

    speeds = {arm: median(arm, "images_s") for arm in numbers}
    targets = [
        at_least(f"{arm} / {BARE}, images/s", median(arm, "speed_ratio"), TARGET)
        for arm in (UNWATCHED, TRAINER)
    ]
    if TIMM in numbers:
        rounds = zip(numbers[TIMM]["steps_ms"], numbers[TRAINER]["steps_ms"], strict=True)
        against = spread([timm / mine for timm, mine in rounds]).median
        targets.append(at_least(f"{TRAINER} / {TIMM}, images/s", against, 1.0))
    asked = "efficientnet_b4" in base["backbone"] and base["image_px"] == 380
    if asked and "H200" in base["machine"]["device"] and base["precision"] == "bf16-mixed":
        targets.append(at_least(f"{TRAINER}, images/s", speeds[TRAINER], B4_IMAGES_S))
    return targets


def print_result(result: Result) -> None:
    """The numbers as a table, and whether the targets are met."""
    out = console()
    out.print(
        f"{result['backbone']}, {result['image_px']} px, batch {result['batch_size']}, "
        f"{result['precision']}, {place(result)}; {result['rounds']} rounds of "
        f"{result['steps']} steps of {result['step_flops'] / 1e9:.1f} GFLOP"
    )
    heads = [
        "arm",
        "images/s",
        "ms/step",
        "/ bare",
        "quartiles",
        "CPU",
        "peak",
        "GFLOP/s",
        "of chip",
    ]
    out.print(table(heads, {arm: _cells(n) for arm, n in result["arms"].items()}))
    out.print(
        "/ bare: speed; CPU: the same of processor time; peak: device memory beyond the images; "
        "chip: share of its peak"
    )


def _cells(numbers: Result) -> list[str]:
    speed, share = numbers["speed_ratio"], numbers["peak_frac"]
    return [
        f"{numbers['images_s']['median']:.1f}",
        f"{numbers['step_ms']['median']:.1f}",
        f"{speed['median']:.3f}",
        f"{speed['low']:.3f}-{speed['high']:.3f}",
        f"{numbers['cpu_speed_ratio']['median']:.3f}",
        "-" if numbers["peak_gib"] is None else f"{numbers['peak_gib']:.2f} GiB",
        f"{numbers['flops_s']['median'] / 1e9:.0f}",
        "-" if share is None else f"{share['median']:.1%}",
    ]
