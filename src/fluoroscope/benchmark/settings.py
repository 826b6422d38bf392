"""The keys of `conf/benchmark.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config.schema import check, number, one_of
from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError


@dataclass
class Benchmark:
    rounds: int = number(1)
    steps: int = number(1)
    warmup: int = number(1)
    epoch_steps: int = number(1)
    arms: list[str] = one_of("monitor", "watch_gradients", "watch_all", "extra_pass")  # noqa: RUF009
    images: int = number(1)
    processes: list[int] | None = MISSING


@dataclass
class Own:
    """What `conf/benchmark.yaml` has beyond `conf/train.yaml`."""

    out: str | None = MISSING
    benchmark: Benchmark = field(default_factory=Benchmark)


class Job(NamedTuple):
    """A measurement and the run that it is of."""

    train: Train
    benchmark: Benchmark
    out: Path | None


def check_benchmark(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """A composed `conf/benchmark.yaml` as typed values; see `schema.check`.

    Raises:
        InputError: also for keys that do not fit a measurement, or a result that has no place.
    """
    mine = list(Own.__dataclass_fields__)
    own = check(OmegaConf.masked_copy(cfg, mine), Own())
    if cfg.run.resume is not None:
        raise InputError("run.resume: a benchmark has no run to continue; leave it null")
    others = [str(name) for name in cfg if name not in mine]
    train = check_train(OmegaConf.masked_copy(cfg, others), overrides)
    _check_cadence(train, own.benchmark)
    _check_processes(own.benchmark)
    if own.out is not None and not Path(own.out).parent.is_dir():
        raise InputError(f"out: there is no folder {Path(own.out).parent}")
    return Job(train, own.benchmark, None if own.out is None else Path(own.out))


def _check_cadence(train: Train, benchmark: Benchmark) -> None:
    every, steps = train.diagnostics.every_n_steps, benchmark.steps
    if not train.diagnostics.enabled:
        raise InputError("diagnostics.enabled=false leaves nothing to measure; leave it true")
    if steps % every:
        raise InputError(
            f"benchmark.steps must be a multiple of diagnostics.every_n_steps={every}, so that "
            f"logged steps have their share; got {steps}"
        )


def _check_processes(benchmark: Benchmark) -> None:
    counts = benchmark.processes
    if counts is not None and not (counts and min(counts) >= 1):
        raise InputError(
            f"benchmark.processes must be whole numbers of at least 1, such as [1,2]; got {counts}"
        )
