"""The keys of `conf/report.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import schema
from fluoroscope.config.schema import number
from fluoroscope.errors import InputError

ONLINE = "wandb:"


@dataclass
class Wandb:
    project: str | None = MISSING
    entity: str | None = MISSING


@dataclass
class Report:
    """`conf/report.yaml`."""

    runs: Any = MISSING
    by: str = MISSING
    reference: str | None = MISSING
    incomplete: bool = MISSING
    resamples: int = number(1)
    out: str | None = MISSING
    wandb: Wandb = field(default_factory=Wandb)


class Online(NamedTuple):
    """A project on W&B; the entity None is the account's own."""

    project: str
    entity: str | None


class Job(NamedTuple):
    """A report to be made.

    Attributes:
        places: folders of runs; empty where they are online.
        source: the runs' project, where they are online.
        target: where the report is put online too.
        out: its folder, if it was given.
    """

    places: list[Path]
    source: Online | None
    target: Online | None
    out: Path | None
    reference: str | None
    incomplete: bool
    resamples: int
    by: str = "activation"


def check_report(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """A composed `conf/report.yaml` as typed values; see `schema.check`.

    Raises:
        InputError: also for runs that are no folder, and a place for the report that is a file.
    """
    if OmegaConf.is_missing(cfg, "runs"):
        raise InputError("runs is not set; add runs=FOLDER, of a sweep, a study or a run")
    typed: Report = schema.check(cfg, Report())
    source = _online(typed.runs)
    target = None
    if typed.wandb.project is not None:
        target = Online(typed.wandb.project, typed.wandb.entity)
    elif typed.wandb.entity is not None:
        raise InputError("wandb.entity needs wandb.project=... beside it, where the report goes")
    if typed.out is not None and Path(typed.out).is_file():
        raise InputError(f"out: {typed.out} is a file; give a folder")
    return Job(
        [] if source else _folders(typed.runs),
        source,
        target,
        None if typed.out is None else Path(typed.out),
        typed.reference,
        typed.incomplete,
        typed.resamples,
        typed.by,
    )


def _online(runs: Any) -> Online | None:
    if not str(runs).startswith(ONLINE):
        return None
    entity, _, project = runs.removeprefix(ONLINE).rpartition("/")
    if not project or "/" in entity:
        raise InputError(f"runs: a project on W&B is {ONLINE}ENTITY/PROJECT; got {runs!r}")
    return Online(project, entity or None)


def _folders(runs: Any) -> list[Path]:
    given = list(runs) if OmegaConf.is_list(runs) else [runs]
    if not given or not all(isinstance(place, str) and place for place in given):
        raise InputError(f"runs must be a folder or a list of folders, 'runs=[A,B]'; got {runs}")
    for place in given:
        if not Path(place).is_dir():
            raise InputError(f"runs: there is no folder {place}")
    return [Path(place) for place in given]
