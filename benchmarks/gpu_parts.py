"""What `benchmarks.gpu` measures, part by part: each takes a `Place` and returns its numbers."""

import copy
import io
import itertools
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks import diagnostics, step
from benchmarks.fits import Clock, Training, now
from benchmarks.options import Job, Result, read_job
from benchmarks.rounds import Column, at_most, spread
from benchmarks.startup import Commands
from benchmarks.watchers import MONITOR, callbacks, of_every_run
from fluoroscope import build
from fluoroscope.ablation.members import Batches, Member
from fluoroscope.ablation.training import Pass
from fluoroscope.command.composition import composed
from fluoroscope.config.ablate import check_ablate
from fluoroscope.config.schema import plain
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.feature_data import FeatureDataModule
from fluoroscope.data.transforms import Augmentation
from fluoroscope.errors import first_sentence
from fluoroscope.estimate import estimate
from fluoroscope.launch.process_setup import cores
from fluoroscope.phantom.render import FINDINGS, draw
from fluoroscope.prepare.image_copy import copy_image
from fluoroscope.run.device import settle_device
from fluoroscope.train import train

TRUTH = Path(__file__).parents[1] / "tests/gpu"
HEADS_S = 20.0  # 120 heads of 20 epochs
FORECAST_ERROR = 0.2
ROUNDS_S = 60.0  # no round of a step is begun later
QUESTION = ["backbone=b4", "backbone.weights=none", "trainer=gpu", "data.labels=[finding]"]
# The same code at toy size.
TOY = [
    *("backbone=lite0", "backbone.name=test_efficientnet", "backbone.weights=none"),
    *("data.image_px=48", "data.labels=[finding]", "trainer.accelerator=cpu"),
    *("trainer.precision=32-true", "head.width=31", "data.batch_size=8", "benchmark.warmup=1"),
]


class Size(NamedTuple):
    """How much of everything a part takes: on a GPU, or at toy size."""

    batches: tuple[int, ...] = (64, 128, 256)
    rounds: int = 3
    steps: int = 10  # of a block, and between two logged ones
    patients: int = 64  # each with one image, drawn and prepared
    epoch_images: int = 8192  # of an epoch from files, which repeats them
    run_images: int = 384  # of the run whose time is forecast
    run_epochs: int = 20
    activations: tuple[str, ...] = ()  # all of `conf/ablate.yaml`
    seeds: int = 10
    epochs: int = 20

    @property
    def middle(self) -> int:
        """The batch size that is measured first."""
        return self.batches[len(self.batches) // 2]


TOY_SIZE = Size((4,), 1, 2, 24, 32, 48, 3, ("relu", "gelu"), 2, 2)


class Place(NamedTuple):
    """Where parts are measured."""

    device: str  # cuda or cpu
    folder: Path  # for what a part writes
    tell: Callable[[Result], None] = lambda result: None  # keep it, if the part is stopped later

    @property
    def size(self) -> Size:
        return Size() if self.device == "cuda" else TOY_SIZE

    def job(self, *overrides: str) -> Job:
        """The training that is measured: the question's network, or a toy."""
        size, base = self.size, QUESTION if self.device == "cuda" else TOY
        counts = [f"benchmark.steps={size.steps}", f"benchmark.rounds={size.rounds}"]
        every = [f"diagnostics.every_n_steps={size.steps}", "logger=csv"]
        job = read_job([*base, *counts, *every, *overrides])
        settle_device(job.train)
        return job


class Part(NamedTuple):
    """A part of the measurement.

    Attributes:
        least_s: it is not begun with less time left, and `most_s` is when it is stopped.
        run: gives `columns` and `arms` of a table, `targets` and a `note`, each if it has them.
        alone: in a process of its own.
    """

    name: str
    about: str
    least_s: float
    most_s: float
    run: Callable[[Place], Result]
    alone: bool = False


def truth(place: Place) -> Result:
    """The tests of `tests/gpu`, in this process."""
    tests = _Outcomes(place.tell)
    options = ["-v", "--continue-on-collection-errors", "-p", "no:cacheprovider", "-m", "gpu"]
    options += [f"--device={place.device}", "--tb=short", str(TRUTH)]
    code = pytest.main(options, plugins=[tests])
    sys.stdout.flush()
    return tests.result(sound=code in (0, 1))


class _Outcomes:
    """A plugin of pytest: how each test ended, and why it failed."""

    def __init__(self, tell: Callable[[Result], None]) -> None:
        self.tell = tell
        self.outcomes: dict[str, str] = {}
        self.why: dict[str, str] = {}

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
            self.why[report.nodeid] = str(report.longrepr).strip().splitlines()[-1][:200]

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid.rpartition("tests/gpu/")[2]
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[name] = report.outcome
        if report.outcome == "failed":
            crash = getattr(report.longrepr, "reprcrash", None)
            self.why[name] = (crash.message if crash else str(report.longrepr)).splitlines()[0][
                :200
            ]
        if report.when == "teardown":
            self.tell(self.result(sound=True))

    def result(self, sound: bool) -> Result:
        """The table of the tests that did not pass.

        Args:
            sound: pytest itself had no error.
        """
        ends = list(self.outcomes.values())
        note = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends))) or "no test ran"
        failed = ends.count("failed") + ("passed" not in ends) + (not sound)
        arms = {
            name: {"outcome": outcome, "why": self.why.get(name, "")}
            for name, outcome in self.outcomes.items()
            if outcome != "passed"
        }
        columns = [Column("outcome", "outcome", ""), Column("why", "why", "")] if arms else []
        targets = [at_most("tests that fail", failed, 0)]
        return {"note": note, "columns": columns, "arms": arms, "targets": targets}


def training_step(batch: int, compiled: bool, place: Place) -> Result:
    """`benchmarks.step` at one batch size, for as many rounds as there is time."""
    if compiled:
        torch._dynamo.reset()  # else a second size of batch is compiled for any size
    job = place.job(f"data.batch_size={batch}", f"backbone.compile={compiled}".lower())
    result: Result = {"note": step.NOTE, "columns": step.COLUMNS}
    result |= step.measure(job, time.monotonic() + ROUNDS_S)
    place.tell(result)
    if not compiled and not all(target["met"] for target in result["targets"]):
        try:
            result["note"] += f"; longest operations of a step: {_longest(job, place)}"
        except Exception as error:  # the measurement is there without it
            result["note"] += f"; not profiled ({first_sentence(error)})"
    return result


def _longest(job: Job, place: Place) -> str:
    """The three operations that take most time of a step with diagnostics, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if place.device == "cuda":
        activities = [torch.profiler.ProfilerActivity.CUDA]
    with Training(job, place.folder / "profile") as training:
        training.time(callbacks(MONITOR, training))  # compilers and autotuners are done
        with torch.profiler.profile(activities=activities) as profiler:
            training.time([*callbacks(MONITOR, training), *of_every_run(training)])
    key = "self_device_time_total" if place.device == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, key) for event in profiler.key_averages()}
    total, longest = sum(times.values()), sorted(times, key=lambda name: -times[name])[:3]
    if not total:
        return "the profiler saw none"
    return ", ".join(f"{name[:60]} {times[name] / total:.0%}" for name in longest)


def watching(place: Place) -> Result:
    """`benchmarks.diagnostics`: the head alone, and every activation of the backbone."""
    arms: Result = {}
    targets: list[Result] = []
    batch = f"data.batch_size={place.size.batches[0]}"
    layers = {"head": "[head.activation]", "all": "['head.activation','backbone.*']"}
    for name, watched in layers.items():
        keys = [f"diagnostics.layers={watched}", "benchmark.arms=[monitor]"]
        result = diagnostics.measure(place.job(batch, *keys))
        arms[name] = result["arms"][MONITOR]
        targets += result["targets"] if name == "head" else []
    note = "head: diagnostics as in every run; all: with every activation of the backbone"
    return {"note": note, "columns": diagnostics.COLUMNS, "arms": arms, "targets": targets}


def heads(place: Place) -> Result:
    """The ablation's heads on features that are there already, as `scripts/ablate.py` trains them.

    700 images, half of them for training, as wide as the question's features.
    """
    size, toy = place.size, place.device != "cuda"
    names = [f"activations=[{','.join(size.activations)}]"] if size.activations else []
    keys = [*(TOY if toy else QUESTION), f"seeds={size.seeds}", f"trainer.max_epochs={size.epochs}"]
    keys = [key for key in keys if not key.startswith("benchmark.")]
    keys.append("head.norm_momentum=0.01")
    ablation = check_ablate(composed("ablate", [*keys, *names, "report=false"]))
    for cfg in ablation.heads.values():
        settle_device(cfg)
    table, features = _features(images=60 if toy else 700, width=24 if toy else 1792)
    first = next(iter(ablation.heads.values()))
    trainer = build.build_trainer(first, place.folder)
    device, precision = trainer.strategy.root_device, trainer.precision_plugin
    torch.linalg.eigvalsh(torch.eye(8, dtype=torch.float64, device=device))  # starts the solver
    start = now(device)
    cfgs = sorted(ablation.heads.values(), key=lambda cfg: cfg.seed)
    for seed, group in itertools.groupby(cfgs, key=lambda cfg: cfg.seed):
        images = XrayDataModule(table, ["finding"], batch_size=first.data.batch_size, seed=seed)
        data = FeatureDataModule(images, features)
        loss = build.build_loss(first, data).to(device)
        members = [Member(cfg, build.build_head(cfg, features.shape[1], data)) for cfg in group]
        Pass(members, Batches(nn.Identity(), data, loss, device, precision), lambda: None).run()
    seconds = now(device).wall_s - start.wall_s
    arm = {"heads": len(ablation.heads), "epochs": size.epochs, "seconds": seconds}
    columns = [Column("heads", "heads", "d"), Column("epochs", "epochs", "d")]
    columns.append(Column("seconds", "seconds", ".1f"))
    return {
        "columns": columns,
        "arms": {f"{len(table)} images": arm},
        "targets": [] if toy else [at_most("120 heads x 20 epochs, seconds", seconds, HEADS_S)],
    }


def _features(images: int, width: int) -> tuple[pd.DataFrame, torch.Tensor]:
    """A table of random labels, and features `[N, F]` that have something to do with them."""
    random = np.random.default_rng(1)
    finding = random.integers(0, 2, images)
    splits = np.resize(["train", "train", "val", "test"], images)
    table = pd.DataFrame({"path": "", "split": splits, "finding": finding})
    features = random.normal(size=(images, width)) + 0.1 * finding[:, None]
    return table, torch.from_numpy(features.clip(0)).float()


def epochs_from_files(place: Place) -> Result:
    """Whole epochs from a prepared copy with the loader of a run, against batches in memory."""
    job = place.job(f"data.batch_size={place.size.middle}")
    paths = prepared_images(place, "films", job.train.data.image_px, place.size.patients)
    rows = list(itertools.islice(itertools.cycle(paths), place.size.epoch_images))
    table = pd.DataFrame({"path": rows, "split": "train", "finding": np.resize([0, 1], len(rows))})
    with Training(job, place.folder / "epochs") as training:
        image_px, batch_size = job.train.data.image_px, job.train.data.batch_size
        augmentation = Augmentation(plain(job.train)["data"]["augment"], image_px)
        data = XrayDataModule(table, ["finding"], image_px, batch_size, augmentation=augmentation)
        training.time(callbacks(MONITOR, training))  # compilers and autotuners are done
        memory = training.time([*callbacks(MONITOR, training), *of_every_run(training)])
        speeds = {"in memory": [training.step_images / memory.step_s]}
        speeds["from files"] = [_epoch(training, data) for _ in range(2)]
    arms: Result = {name: {"images_s": spread(values)} for name, values in speeds.items()}
    left = arms["from files"]["images_s"]["median"] / arms["in memory"]["images_s"]["median"]
    arms["from files"]["left"] = left
    arms["in memory"]["left"] = None
    columns = [Column("images/s", "images_s", ".0f"), Column("/ in memory", "left")]
    note = f"{len(paths)} JPEG copies, {len(rows)} images an epoch, {cores()} cores"
    return {"note": note, "columns": columns, "arms": arms}


def _epoch(training: Training, data: XrayDataModule) -> float:
    """Images/s of an epoch from files, after the first steps."""
    training.restart()
    clock = Clock(training.options.warmup)
    trainer = build.build_trainer(training.cfg, training.folder)
    trainer.callbacks.extend(  # type: ignore[attr-defined]
        [*callbacks(MONITOR, training), *of_every_run(training), clock]
    )
    trainer.loggers = training.loggers
    data.trainer = trainer
    trainer.fit(training.model, train_dataloaders=data.train_dataloader())
    return training.step_images / clock.block.step_s


def prepared_images(place: Place, name: str, image_px: int, patients: int) -> list[str]:
    """Phantom films, drawn and copied as `scripts/prepare.py size=PX format=jpeg` does."""
    folder = place.folder / name
    draws = partial(_draw_and_copy, folder, image_px)
    for finding in ("normal", "finding"):
        (folder / finding).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(draws, range(patients)))


def _draw_and_copy(folder: Path, image_px: int, patient: int) -> str:
    ill = patient % 2
    target = folder / ("finding" if ill else "normal") / f"p{patient:04d}.jpg"
    if not target.exists():
        film = draw(patient, 0, FINDINGS[:1] if ill else (), size_px=max(64, image_px + 32))
        raw = target.with_suffix(".raw.png")
        cv2.imwrite(str(raw), film)
        copy_image(str(raw), target, image_px, "jpeg")
        raw.unlink()
    return str(target)


def cold_start(place: Place) -> Result:
    """From the command to the end of its first step, in a new process; see `benchmarks.startup`."""
    job = place.job()
    prepared_images(place, "films", job.train.data.image_px, place.size.patients)
    base = QUESTION if place.device == "cuda" else TOY
    keys = [key for key in base if not key.startswith(("benchmark.", "data.labels"))]
    keys += ["data=folder", f"data.root={place.folder / 'films'}", "logger=csv"]
    keys += [f"data.batch_size={min(place.size.batches[0], place.size.patients // 4)}"]
    sample = Commands(place.folder / "cold", keys).sample("first_step")
    arms = {name: {"seconds": seconds} for name, seconds in sample.stages_s.items()}
    arms["total"] = {"seconds": sample.total_s}
    return {"columns": [Column("seconds", "seconds", ".2f")], "arms": arms}


def forecast(place: Place) -> Result:
    """What `run.estimate=true` says of a run on files, against the run itself."""
    size, toy = place.size, place.device != "cuda"
    folder = place.folder / "forecast"
    keys = ["data=folder", f"data.root={folder}", f"data.batch_size={8 if toy else 32}"]
    cfg = place.job(*keys, f"trainer.max_epochs={size.run_epochs}").train
    prepared_images(place, folder.name, cfg.data.image_px, size.run_images)
    with redirect_stdout(io.StringIO()):
        estimated_s = estimate(copy.deepcopy(cfg))
        start = time.perf_counter()
        train(cfg, place.folder / "run", [])
        run_s = time.perf_counter() - start
    error = abs(estimated_s / run_s - 1)
    columns = [Column("seconds", "seconds", ".1f")]
    return {
        "note": f"{size.run_images} JPEG copies, {size.run_epochs} epochs, {cores()} cores",
        "columns": columns,
        "arms": {"forecast": {"seconds": estimated_s}, "run": {"seconds": run_s}},
        "targets": [] if toy else [at_most("forecast is off by", error, FORECAST_ERROR)],
    }


def parts(place: Place) -> list[Part]:
    """All parts, the most important first."""
    middle = place.size.middle
    rest = [batch for batch in place.size.batches if batch != middle]

    def eager(batch: int) -> Part:
        run = partial(training_step, batch, False)
        return Part(f"step-{batch}", f"training step, batch {batch}", 40, 150, run)

    def compiled(batch: int) -> Part:
        run, about = partial(training_step, batch, True), f"training step, batch {batch}, compiled"
        return Part(f"step-{batch}-compiled", about, 120, 240, run)

    return [
        Part("truth", "truth: tests/gpu", 20, 150, truth, alone=True),
        eager(middle),
        Part("heads", "ablation on cached features", 10, 60, heads),
        Part("watching", "cost of the diagnostics", 40, 90, watching),
        Part("epochs", "whole epochs from a prepared copy", 40, 90, epochs_from_files),
        Part("cold", "first step from a cold start", 15, 60, cold_start),
        Part("forecast", "forecast of a run", 45, 120, forecast),
        compiled(middle),
        *map(eager, rest),
        *map(compiled, rest),
    ]
