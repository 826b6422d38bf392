"""How fast images load: decoding and augmentation on one core, and the run's loader over its step.

| arm | images |
| --- | --- |
| `raw` | original files: read, resized, augmented; in this process, on one core |
| `raw_plain` | the same without augmentation |
| `raw_worker` | `raw` by one loader process, bound to one core |
| `png`, `png_worker` | as `raw` and `raw_worker`, of a prepared copy at the training size |
| `stored`, `jpeg` | as `png`, of copies made with `format=stored` and `format=jpeg` |
| `torchxrayvision` | the original files by its own reader, without augmentation, if installed |
| `run`, `run_png` | the loader processes of a run, on the original files and on the copies |
| `step` | images/s of the training step alone, all diagnostics on |

Images are those of the training split, in the page cache: each arm reads them once before the
rounds. Every arm has one block per round, in an order that is drawn anew. The headroom is the speed
of a loader over that of the step in the same round: below 1 the run waits for its loader. Arms of
one process also have their speed per second of processor time; other users of the machine disturb
it less.

Examples:
  python -m benchmarks.loader data=nih14 data.root=DIR benchmark.images=512
"""

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from benchmarks.fits import Training, now
from benchmarks.options import Job, Result, run
from benchmarks.readers import Files, make_loader, one_core, prepare, torchxrayvision_loader
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
from fluoroscope import build
from fluoroscope.config.schema import plain
from fluoroscope.data.prefetch import available_cores
from fluoroscope.data.transforms import Augmentation
from fluoroscope.files.images import read_image
from fluoroscope.prepare.image_copy import SUFFIXES

STEP = "step"
ONE_CORE = ("raw", "raw_plain", *SUFFIXES, "torchxrayvision")
PREPARED_IMAGES_S, RAW_IMAGES_S, OTHER_IMAGES_S = 700.0, 95.0, 69.0  # at 380 px, per core
COLUMNS = (
    Column("images/s", "images_s", ".0f"),
    Column("per CPU second", "images_cpu_s", ".0f"),
    Column("/ step", "headroom", ".2f"),
)


class Sample(NamedTuple):
    """A timed block of one arm."""

    images_s: float
    images_cpu_s: float | None  # per second of processor time; None if other processes do the work


def measure(job: Job) -> Result:
    """Run all arms; `arms` of the result holds their numbers."""
    images, raw = job.benchmark.images, training_files(job)
    with tempfile.TemporaryDirectory() as folder, Training(job, Path(folder)) as training:
        loaders = make_loaders(job, raw, Path(folder))

        def sample(arm: str) -> Sample:
            return time_step(training) if arm == STEP else time_loader(arm, loaders[arm], images)

        for arm in (*loaders, STEP):  # files into the page cache, loader processes started
            sample(arm)
        samples = alternate(
            [*loaders, STEP],
            job.benchmark.rounds,
            job.train.seed,
            sample,
            lambda sample: f"{sample.images_s:.0f}",
        )
        facts = describe_job("loader", job, training.device)
    facts |= {"files": len(raw.paths), "workers": _workers(job), "images": images}
    facts["raw_px"] = int(median(max(read_image(path).shape) for path in raw.paths[:16]))
    numbers = {arm: compare(arm, samples) for arm in samples}
    return facts | {"targets": judge(numbers, facts), "arms": numbers}


def training_files(job: Job) -> Files:
    """As many images of the training split as a block reads, drawn by the seed."""
    studies = build.build_studies(job.train)
    paths = studies.table.loc[studies.table["split"] == "train", "path"].tolist()
    drawn = random.Random(job.train.seed).sample(paths, min(len(paths), job.benchmark.images))
    data = job.train.data
    return Files(drawn, data.image_px, data.batch_size, job.train.seed)


def make_loaders(job: Job, raw: Files, folder: Path) -> dict[str, DataLoader]:
    """A loader for each arm; torchxrayvision's only if it can read the files."""
    images, workers = job.benchmark.images, _workers(job)
    copies = {kind: prepare(raw, folder / kind, kind) for kind in SUFFIXES}
    augmentation = Augmentation(plain(job.train)["data"]["augment"], raw.image_px)
    loaders = {
        "raw": make_loader(raw, images, augmentation, 0),
        "raw_plain": make_loader(raw, images, None, 0),
        "raw_worker": make_loader(raw, images, augmentation, 1),
        **{kind: make_loader(copy, images, augmentation, 0) for kind, copy in copies.items()},
        "png_worker": make_loader(copies["png"], images, augmentation, 1),
        "run": make_loader(raw, images, augmentation, workers),
        "run_png": make_loader(copies["png"], images, augmentation, workers),
    }
    other = torchxrayvision_loader(raw, images)
    return loaders if other is None else loaders | {"torchxrayvision": other}


def _workers(job: Job) -> int:
    given = job.train.data.num_workers
    return available_cores(processes=1) if given is None else given


def time_loader(arm: str, loader: DataLoader, images: int) -> Sample:
    """One pass over a loader; arms of one process stay on one core."""
    cpu = torch.device("cpu")
    if arm in ONE_CORE:
        with one_core():
            first, _, last = now(cpu), sum(1 for _ in loader), now(cpu)
        return Sample(images / (last.wall_s - first.wall_s), images / (last.cpu_s - first.cpu_s))
    first, _, last = now(cpu), sum(1 for _ in loader), now(cpu)
    return Sample(images / (last.wall_s - first.wall_s), None)


def time_step(training: Training) -> Sample:
    """The training step alone."""
    block = training.time([*callbacks(MONITOR, training), *of_every_run(training)])
    return Sample(training.step_images / block.step_s, None)


def compare(arm: str, samples: Mapping[str, list[Sample]]) -> Result:
    """Speed of an arm, and its headroom over `step`."""
    speeds, steps = ([sample.images_s for sample in samples[name]] for name in (arm, STEP))
    cpu = [sample.images_cpu_s for sample in samples[arm] if sample.images_cpu_s is not None]
    return {
        "images_s": spread(speeds),
        "images_cpu_s": spread(cpu) if cpu else None,
        "headroom": ratio(speeds, steps),
        "all_images_s": speeds,
    }


def judge(numbers: Result, facts: Result) -> list[Result]:
    """The targets that apply to these files and this size."""
    speed = {arm: values["images_s"]["median"] for arm, values in numbers.items()}
    targets = []
    if facts["image_px"] == 380:
        targets.append(at_least("prepared PNG, images/s per core", speed["png"], PREPARED_IMAGES_S))
        if facts["raw_px"] == 1024:
            targets.append(at_least("raw 1024 px, images/s per core", speed["raw"], RAW_IMAGES_S))
    if "torchxrayvision" in numbers:
        mine, other = (numbers[arm]["all_images_s"] for arm in ("raw", "torchxrayvision"))
        bound = RAW_IMAGES_S / OTHER_IMAGES_S
        targets.append(at_least("raw / torchxrayvision", ratio(mine, other)["median"], bound))
    return targets


def conclude(job: Job, result: Result) -> None:
    """Write and print the result."""
    note = (
        f"{result['files']} files of {result['raw_px']} px, {result['images']} images per block; "
        f"run, run_png: {result['workers']} loader processes; / step: speed over that of the step"
    )
    write_and_print(job, result, COLUMNS, note)


if __name__ == "__main__":
    run(__doc__ or "", measure, conclude)
