"""How fast images come: decoding and augmentation on one core, and the run's loader over its step.

| arm | is |
| --- | --- |
| `raw` | the files as they are: read, brought to size, augmented; in this process, on one core |
| `raw_plain` | the same without augmentation |
| `raw_worker` | `raw` by one loader process, bound to one core |
| `png`, `png_worker` | as `raw` and `raw_worker`, of a prepared copy at the training size |
| `stored`, `jpeg` | as `png`, of copies made with `format=stored` and `format=jpeg` |
| `torchxrayvision` | its own reading of the raw files, without augmentation, where installed |
| `run`, `run_png` | as many loader processes as the run has, on the raw files and on the copies |
| `step` | images a second of the training step alone, all diagnostics on |

Images are of the training split, in the page cache: each arm goes through them once before the
rounds. In each round every arm has one block, in an order that is drawn anew. The headroom is the
speed of a loader over that of the step in the same round: below 1 the run waits for its loader. Of
the arms of one process the speed a second of its processor time stands beside that of the clock;
others on the machine disturb it less.
"""

import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from fluoroscope import build
from fluoroscope.benchmark.arms import MONITOR, callbacks
from fluoroscope.benchmark.readers import Files, loader, one_core, prepare, torchxrayvision_loader
from fluoroscope.benchmark.rounds import (
    Result,
    alternate,
    at_least,
    conclude,
    console,
    described,
    place,
    ratio,
    shown,
    table,
)
from fluoroscope.benchmark.settings import Job
from fluoroscope.benchmark.step import fit
from fluoroscope.benchmark.timing import now, spread
from fluoroscope.benchmark.training import Training
from fluoroscope.data.prefetch import available_cores
from fluoroscope.data.transforms import Augmentation
from fluoroscope.files.images import read_image
from fluoroscope.prepare.images import SUFFIXES
from fluoroscope.run import loggers
from fluoroscope.train import hush

STEP = "step"
ONE_CORE = ("raw", "raw_plain", *SUFFIXES, "torchxrayvision")
PREPARED_IMAGES_S, RAW_IMAGES_S, OTHER_IMAGES_S = 700.0, 95.0, 69.0  # at 380 px, a core
CPU = torch.device("cpu")


class Sample(NamedTuple):
    """A timed block of one arm."""

    images_s: float
    images_cpu_s: float | None  # a second of processor time; None where others do the work


def main(job: Job) -> None:
    """Entry of `scripts/benchmark.py loader`."""
    hush()
    conclude(job, measure(job), print_result)


def measure(job: Job) -> Result:
    """Run all arms.

    Returns:
        What the JSON file holds; `arms` has the numbers.
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = files(job)
        training = Training(job, Path(folder))
        loaders = make_loaders(job, raw, Path(folder))
        arms: dict[str, Callable[[], Sample]] = {
            arm: _reading(arm, made, job.benchmark.images) for arm, made in loaders.items()
        }
        arms[STEP] = lambda: time_step(training, job)
        try:
            for sample in arms.values():  # files into the page cache, workers awake
                sample()
            samples = alternate(
                list(arms),
                job.benchmark.rounds,
                job.train.seed,
                lambda arm: arms[arm](),
                lambda sample: f"{sample.images_s:.0f}",
            )
        finally:
            loggers.finish(0)
        facts = described("loader", job, training.device)
        facts |= {"raw_px": _longest_px(raw), "files": len(raw.paths), "workers": _workers(job)}
    facts |= {"images": job.benchmark.images}
    numbers = {arm: compare(arm, samples) for arm in samples}
    return facts | {"targets": judge(numbers, facts), "arms": numbers}


def files(job: Job) -> Files:
    """As many of the training split's images as a block reads, drawn by the seed."""
    studies = build.build_studies(job.train)
    paths = studies.table.loc[studies.table["split"] == "train", "path"].tolist()
    drawn = random.Random(job.train.seed).sample(paths, min(len(paths), job.benchmark.images))
    data = job.train.data
    return Files(drawn, data.image_px, data.batch_size, job.train.seed)


def make_loaders(job: Job, raw: Files, folder: Path) -> dict[str, DataLoader]:
    """A loader of each arm, but for torchxrayvision's where there can be none."""
    images, workers = job.benchmark.images, _workers(job)
    copies = {kind: prepare(raw, folder / kind, kind) for kind in SUFFIXES}
    augmentation = Augmentation(build.plain(job.train)["data"]["augment"], raw.image_px)
    loaders = {
        "raw": loader(raw, images, augmentation, 0),
        "raw_plain": loader(raw, images, None, 0),
        "raw_worker": loader(raw, images, augmentation, 1),
        **{kind: loader(copy, images, augmentation, 0) for kind, copy in copies.items()},
        "png_worker": loader(copies["png"], images, augmentation, 1),
        "run": loader(raw, images, augmentation, workers),
        "run_png": loader(copies["png"], images, augmentation, workers),
    }
    other = torchxrayvision_loader(raw, images)
    return loaders if other is None else loaders | {"torchxrayvision": other}


def _workers(job: Job) -> int:
    given = job.train.data.num_workers
    return available_cores(processes=1) if given is None else given


def _longest_px(raw: Files) -> int:
    """The median longest side of the first files."""
    return int(median(max(read_image(path).shape) for path in raw.paths[:16]))


def _reading(arm: str, made: DataLoader, images: int) -> Callable[[], Sample]:
    def read() -> Sample:
        first = now(CPU)
        for _ in made:
            pass
        last = now(CPU)
        return Sample(images / (last.wall_s - first.wall_s), images / (last.cpu_s - first.cpu_s))

    def read_alone() -> Sample:
        with one_core():
            return read()

    if arm in ONE_CORE:
        return read_alone
    return lambda: read()._replace(images_cpu_s=None)


def time_step(training: Training, job: Job) -> Sample:
    warmup = job.benchmark.warmup
    watching = callbacks(MONITOR, training)
    block = fit(training, warmup + job.benchmark.steps, warmup, watching)
    images = job.train.data.batch_size * job.train.trainer.accumulate_grad_batches
    return Sample(images / block.step_s, None)


def compare(arm: str, samples: Mapping[str, list[Sample]]) -> Result:
    """An arm's speed, and its headroom over `step`."""
    speeds = [sample.images_s for sample in samples[arm]]
    steps = [sample.images_s for sample in samples[STEP]]
    cpu = [sample.images_cpu_s for sample in samples[arm] if sample.images_cpu_s is not None]
    return {
        "images_s": spread(speeds)._asdict(),
        "images_cpu_s": spread(cpu)._asdict() if cpu else None,
        "headroom": ratio(speeds, steps)._asdict(),
        "all_images_s": speeds,
    }


def judge(numbers: Result, facts: Result) -> list[Result]:
    """The targets that these files and this size can meet or miss."""

    def speed(arm: str) -> float:
        return numbers[arm]["images_s"]["median"]

    targets = []
    if facts["image_px"] == 380:
        what = "prepared PNG, images/s a core"
        targets.append(at_least(what, speed("png"), PREPARED_IMAGES_S))
        if facts["raw_px"] == 1024:
            what = "raw 1024 px, images/s a core"
            targets.append(at_least(what, speed("raw"), RAW_IMAGES_S))
    if "torchxrayvision" in numbers:
        rounds = [numbers[arm]["all_images_s"] for arm in ("raw", "torchxrayvision")]
        what = "raw / torchxrayvision"
        targets.append(at_least(what, ratio(*rounds).median, RAW_IMAGES_S / OTHER_IMAGES_S))
    return targets


def print_result(result: Result) -> None:
    """The numbers as a table."""
    out = console()
    out.print(
        f"{result['files']} files of {result['raw_px']} px to {result['image_px']} px, "
        f"{place(result)}; {result['rounds']} rounds of {result['images']} images, "
        f"{result['workers']} loader processes in run, run_png"
    )
    rows = {arm: _cells(numbers) for arm, numbers in result["arms"].items()}
    out.print(table(["arm", "images/s", "a second of CPU", "/ step"], rows))


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    cpu = numbers["images_cpu_s"]
    return [
        shown(numbers["images_s"], ".0f"),
        "-" if cpu is None else shown(cpu, ".0f"),
        shown(numbers["headroom"], ".2f"),
    ]
