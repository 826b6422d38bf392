"""The keys of a measurement, checked, and the command that takes them."""

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, OmegaConf

from fluoroscope.command import run_one
from fluoroscope.command.composition import composed
from fluoroscope.command.entry import help_text
from fluoroscope.config.place_checks import check_places
from fluoroscope.config.schema import check, number, one_of
from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import BAD_INPUT

DEFAULTS = """\
out: null # FILE.json for the result; null: benchmark.json in run.dir
benchmark:
  rounds: 8 # each measures every arm once, in a new order
  steps: 20 # optimizer steps of a timed block, a multiple of diagnostics.every_n_steps
  warmup: 3 # untimed steps before them
  epoch_steps: 100 # diagnostics: steps of the epoch that shares the cost of its end
  arms: [monitor, watch_gradients, watch_all, extra_pass] # and units; each against none of them
  images: 256 # loader: images of a timed block
  processes: null # scaling: e.g. [1,2,4]; null: 1, 2, 4, ... up to the number of GPUs, or of cores
"""
OWN = ("benchmark.", "out=")
ARMS = ("monitor", "units", "watch_gradients", "watch_all", "extra_pass")
Result = dict[str, Any]


@dataclass
class Benchmark:
    rounds: int = number(1)
    steps: int = number(1)
    warmup: int = number(1)
    epoch_steps: int = number(1)
    arms: list[str] = one_of(*ARMS)  # noqa: RUF009
    images: int = number(1)
    processes: list[int] | None = MISSING


@dataclass
class Options:
    """The keys that a measurement has beyond those of a training."""

    out: str | None = MISSING
    benchmark: Benchmark = field(default_factory=Benchmark)


class Job(NamedTuple):
    """A measurement, and the training that it measures."""

    train: Train
    benchmark: Benchmark
    out: Path
    overrides: list[str]  # of the training alone


def run(
    doc: str, measure: Callable[[Job], Result], conclude: Callable[[Job, Result], None]
) -> None:
    """Run `python -m benchmarks.NAME KEY=VALUE ...`: measure, then write and print the result."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(f"{doc.strip()}\n\nKeys of every measurement:\n\n{DEFAULTS}", "train"))
        return
    warnings.filterwarnings("ignore", category=FutureWarning)
    with run_one.quiet_end():
        try:
            from fluoroscope.run.device import settle_device

            job = read_job(sys.argv[1:])
            settle_device(job.train)
            conclude(job, measure(job))
        except InputError as error:
            run_one.print_error(error)
            sys.exit(BAD_INPUT)


def check_first(arguments: Sequence[str]) -> None:
    """Refuse the keys of a measurement before its module imports PyTorch."""
    if {"-h", "--help"} & set(arguments):
        return
    try:
        check_places(read_job(arguments).train)
    except InputError as error:
        run_one.print_error(error)
        sys.exit(BAD_INPUT)


def read_job(overrides: Sequence[str]) -> Job:
    """The keys of the command line as a checked job.

    Raises:
        InputError: a key or value that is refused, does not fit a measurement, or an `out` whose
            folder does not exist.
    """
    own = [override for override in overrides if override.startswith(OWN)]
    rest = [override for override in overrides if override not in own]
    folder = f"run.dir=outputs/{time.strftime('%Y-%m-%d_%H-%M-%S')}-benchmark"
    train = check_train(composed("train", [folder, *rest]), rest)
    given = OmegaConf.merge(OmegaConf.create(DEFAULTS), OmegaConf.from_dotlist(own))
    options = check(given, Options())  # type: ignore[arg-type]
    _check_fit(train, options.benchmark)
    if options.out is not None and not Path(options.out).parent.is_dir():
        raise InputError(f"out: there is no folder {Path(options.out).parent}")
    out = Path(options.out or f"{train.run.dir}/benchmark.json")
    return Job(train, options.benchmark, out, rest)


def _check_fit(train: Train, benchmark: Benchmark) -> None:
    every, counts = train.diagnostics.every_n_steps, benchmark.processes
    if train.run.resume is not None:
        raise InputError("run.resume: a benchmark has no run to continue; leave it null")
    if not train.diagnostics.enabled:
        raise InputError("diagnostics.enabled=false leaves nothing to measure; leave it true")
    if benchmark.steps % every:
        raise InputError(
            f"benchmark.steps must be a multiple of diagnostics.every_n_steps={every}, so that "
            f"every block has its share of logged steps; got {benchmark.steps}"
        )
    if counts is not None and not (counts and min(counts) >= 1):
        raise InputError(
            f"benchmark.processes must be whole numbers of at least 1, such as [1,2]; got {counts}"
        )
