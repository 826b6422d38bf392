"""Arms measured in turn, and what every measurement says and writes of itself."""

import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from rich import box
from rich.console import Console
from rich.table import Table

from fluoroscope.benchmark.machine import machine, versions
from fluoroscope.benchmark.settings import Job
from fluoroscope.benchmark.timing import Spread, spread
from fluoroscope.console import short_path
from fluoroscope.run import run_folder

Result = dict[str, Any]
T = TypeVar("T")


def at_least(what: str, value: float, wanted: float) -> Result:
    """A target: what is wanted of which number, and whether it is met."""
    return {"what": what, "value": value, "at_least": wanted, "met": value >= wanted}


def at_most(what: str, value: float, wanted: float) -> Result:
    """As `at_least`."""
    return {"what": what, "value": value, "at_most": wanted, "met": value <= wanted}


def alternate(
    arms: Sequence[str],
    rounds: int,
    seed: int,
    measure: Callable[[str], T],
    shown: Callable[[T], str],
) -> dict[str, list[T]]:
    """Measure every arm once a round, in an order drawn anew, with a line a round to say so.

    So no arm always follows the same one, and a ratio within a round is of one state of the
    machine.
    """
    found: dict[str, list[T]] = {arm: [] for arm in arms}
    draw, started = random.Random(seed), time.perf_counter()
    for done in range(1, rounds + 1):
        for arm in draw.sample(list(arms), len(arms)):
            found[arm].append(measure(arm))
        left_min = math.ceil((time.perf_counter() - started) / done * (rounds - done) / 60)
        told = "  ".join(f"{arm} {shown(values[-1])}" for arm, values in found.items())
        print(f"round {done}/{rounds}: {told}; {left_min} min left", flush=True)
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of two arms, taken within each round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def described(name: str, job: Job, device: Any) -> Result:
    """What was measured, on what."""
    cfg = job.train
    return {
        "benchmark": name,
        "machine": machine(device),
        "versions": versions(),
        "backbone": cfg.backbone.name,
        "frozen": cfg.backbone.frozen,
        "compile": cfg.backbone.compile,
        "channels_last": cfg.backbone.channels_last,
        "image_px": cfg.data.image_px,
        "batch_size": cfg.data.batch_size,
        "precision": cfg.trainer.precision,
        "activation": cfg.head.activation,
        "rounds": job.benchmark.rounds,
    }


def conclude(job: Job, result: Result, print_result: Callable[[Result], None]) -> None:
    """Write the result, print it, and say which targets are met and where it is."""
    file = job.out or Path(HydraConfig.get().runtime.output_dir) / "benchmark.json"
    run_folder.write_json(file, result)
    print_result(result)
    for target in result["targets"]:
        print(told(target))
    print(short_path(file))


def console() -> Console:
    """Wide enough for every table where nobody watches a terminal."""
    width = None if sys.stdout.isatty() else 120
    return Console(highlight=False, soft_wrap=True, width=width)


def place(result: Result) -> str:
    """The machine, in words."""
    where = result["machine"]
    cores = f"{where['cores']} cores, {where['threads']} threads"
    return f"{where['cpu']} ({cores})" if where["device"] == "cpu" else where["device"]


def table(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    """A row an arm; the first head is of its name."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in heads:
        made.add_column(head, no_wrap=True)
    for name, cells in rows.items():
        made.add_row(name, *cells)
    return made


def shown(value: Spread | Mapping[str, float], form: str = ".3f") -> str:
    """`median (low-high)`."""
    median, low, high = value if isinstance(value, Spread) else value.values()
    return f"{median:{form}} ({low:{form}}-{high:{form}})"


def told(target: Result) -> str:
    """`trainer / bare: 0.991, at least 0.98 wanted: met`."""
    bound = "at least" if "at_least" in target else "at most"
    wanted = target[bound.replace(" ", "_")]
    met = "met" if target["met"] else "missed"
    return f"{target['what']}: {target['value']:.4g}, {bound} {wanted:.4g} wanted: {met}"
