"""Arms measured in turn, their numbers, and how a measurement is written and printed."""

import math
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from rich import box
from rich.table import Table

from benchmarks.options import Job, Result
from fluoroscope.console import make_console, short_path
from fluoroscope.launch.process_setup import cores
from fluoroscope.run import run_folder

PACKAGES = ("torch", "pytorch-lightning", "timm", "wandb", "numpy")
WIDE = 250  # columns of a table in a log
T = TypeVar("T")


class Spread(NamedTuple):
    """Median and quartiles over the rounds."""

    median: float
    low: float
    high: float


class Column(NamedTuple):
    """A column of a printed table: its head, and the number of an arm that it shows."""

    head: str
    key: str
    form: str = ".3f"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, interpolated.

    >>> spread([4.0, 1.0, 2.0])
    {'median': 2.0, 'low': 1.5, 'high': 3.0}
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high))._asdict()


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Spread of the ratio of two arms, taken within each round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def alternate(
    arms: Sequence[str],
    rounds: int,
    seed: int,
    measure: Callable[[str], T],
    describe: Callable[[T], str],
    until: float = math.inf,
) -> dict[str, list[T]]:
    """Measure every arm once in each round, and print one line per round.

    The order is drawn anew in each round, so that no arm always follows the same one. The machine
    is in one state within a round, so ratios are taken there.
    """
    samples: dict[str, list[T]] = {arm: [] for arm in arms}
    draw, started = random.Random(seed), time.perf_counter()
    for done in range(1, rounds + 1):
        for arm in draw.sample(list(arms), len(arms)):
            samples[arm].append(measure(arm))
        left_min = math.ceil((time.perf_counter() - started) / done * (rounds - done) / 60)
        last = "  ".join(f"{arm} {describe(values[-1])}" for arm, values in samples.items())
        print(f"round {done}/{rounds}: {last}; {left_min} min left", flush=True)
        if time.monotonic() > until:
            break
    return samples


def at_least(name: str, value: float, bound: float) -> Result:
    """A target that a number reaches from below."""
    return {"what": name, "value": value, "at_least": bound, "met": value >= bound}


def at_most(name: str, value: float, bound: float) -> Result:
    """A target that a number must not exceed."""
    return {"what": name, "value": value, "at_most": bound, "met": value <= bound}


def describe_target(target: Result) -> str:
    """`trainer / bare: 0.991, target at least 0.98: met`."""
    words, key = ("at least", "at_least") if "at_least" in target else ("at most", "at_most")
    verdict = "met" if target["met"] else "missed"
    return f"{target['what']}: {target['value']:.4g}, target {words} {target[key]:.4g}: {verdict}"


def describe_job(name: str, job: Job, device: torch.device) -> Result:
    """The training that is measured, and the machine."""
    cfg = job.train
    return {
        "benchmark": name,
        "machine": describe_machine(device),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "backbone": cfg.backbone.name,
        "frozen": cfg.backbone.frozen,
        "compile": cfg.backbone.compile,
        "channels_last": cfg.backbone.channels_last,
        "image_px": cfg.data.image_px,
        "batch_size": cfg.data.batch_size,
        "precision": cfg.trainer.precision,
        "activation": cfg.head.activation,
        "rounds": job.benchmark.rounds,
        "steps": job.benchmark.steps,
    }


def describe_machine(device: torch.device) -> Result:
    """Names of the processors; cores, threads of this process; the load by all users."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere `platform` knows the name
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def write_and_print(
    job: Job, result: Result, columns: Sequence[Column], note: str = "", arm: str = "arm"
) -> None:
    """Write the result to `out`; print its table, the verdict on each target, and the file.

    Args:
        columns: of the table, which has one row per arm.
        note: printed below the table.
        arm: head of the first column.
    """
    job.out.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(job.out, result)
    console = make_console()
    if not console.is_terminal:
        console.width = WIDE  # in a log no number is cut off
    console.print(_headline(result), soft_wrap=True)
    console.print(table(arm, columns, result["arms"]))
    for line in [note, *map(describe_target, result["targets"])]:
        console.print(line, soft_wrap=True) if line else None
    print(short_path(job.out))


def _headline(result: Result) -> str:
    machine = result["machine"]
    processor = f"{machine['cpu']} ({machine['cores']} cores, {machine['threads']} threads)"
    return (
        f"{result['backbone']}, {result['image_px']} px, batch {result['batch_size']}, "
        f"{result['precision']}, {processor if machine['device'] == 'cpu' else machine['device']}; "
        f"{result['rounds']} rounds of {result['steps']} steps"
    )


def table(first: str, columns: Sequence[Column], rows: Mapping[str, Result]) -> Table:
    """One row per name; a spread is shown as `median (low-high)`, a missing number as `-`."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in (first, *(column.head for column in columns)):
        drawn.add_column(head, no_wrap=True)
    for name, numbers in rows.items():
        drawn.add_row(name, *(cell(numbers[column.key], column.form) for column in columns))
    return drawn


def cell(value: Any, form: str = ".3f") -> str:
    """`1.25 (1.00-1.50)`, `1.25` or `-`."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return f"{value['median']:{form}} ({value['low']:{form}}-{value['high']:{form}})"
    return f"{value:{form}}"
