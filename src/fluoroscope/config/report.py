"""The keys of `conf/report.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import OPEN_KEYS, schema
from fluoroscope.config.dashboard import run_keys
from fluoroscope.config.rules import check_wandb_name
from fluoroscope.config.schema import number, ruled
from fluoroscope.errors import InputError, nearest

ONLINE = "wandb:"
ACTIVATION, REMEDY = "activation", "remedy"  # short names of keys to compare by


def check_by(key: str, value: str) -> None:
    """Check `by`.

    Raises:
        InputError: runs do not have this key.
    """
    if value not in (ACTIVATION, REMEDY) and not value.startswith(OPEN_KEYS):
        known = run_keys()
        if value not in known:
            near = nearest(value, [ACTIVATION, REMEDY, *known])
            raise InputError(f"{key}: runs have no key {value}{near}")


@dataclass
class Wandb:
    project: str | None = ruled(check_wandb_name)
    entity: str | None = ruled(check_wandb_name)


@dataclass
class Report:
    """`conf/report.yaml`."""

    runs: Any = MISSING
    by: str = ruled(check_by)
    reference: str | None = MISSING
    incomplete: bool = MISSING
    margin: float = number(0, 1)
    min_patients: int = number(1)
    min_seeds: int = number(2)
    blackout_share: float = number(0, 1)
    out: str | None = MISSING
    wandb: Wandb = field(default_factory=Wandb)


@dataclass(frozen=True)
class Rule:
    """What a finding, or a blackout that decides, needs.

    Attributes:
        margin: differences of AUROC up to this size do not matter.
        min_patients: test patients with, and without, each label.
        min_seeds: seeds that an activation shares with the reference.
        blackout_share: images that must be blacked out for long before that decides. The mean over
            seeds, so that one image of a validation set of a hundred does not.
    """

    margin: float = 0.02
    min_patients: int = 10
    min_seeds: int = 3
    blackout_share: float = 0.01


RULE = Rule()  # the default of `conf/report.yaml`


class Online(NamedTuple):
    """A project on W&B; an entity of None means the account's default."""

    project: str
    entity: str | None


class Job(NamedTuple):
    """A report to make.

    Attributes:
        places: folders with runs; empty if the runs are on W&B.
        source: W&B project of the runs, if they are on W&B.
        target: W&B project to publish the report in, if any.
        out: folder of the report, if given.
        rule: what a finding needs.
    """

    places: list[Path]
    source: Online | None
    target: Online | None
    out: Path | None
    reference: str | None
    incomplete: bool
    rule: Rule = RULE
    by: str = ACTIVATION


def check_report(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """Convert a composed `conf/report.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also if `runs` is not a folder, or `out` is a file.
    """
    if OmegaConf.is_missing(cfg, "runs"):
        raise InputError("runs is not set; add runs=FOLDER, the folder of a sweep, study or run")
    typed: Report = schema.check(cfg, Report())
    source = _online(typed.runs)
    target = None
    if typed.wandb.project is not None:
        target = Online(typed.wandb.project, typed.wandb.entity)
    elif typed.wandb.entity is not None:
        raise InputError("wandb.entity is set without a project; add wandb.project=NAME")
    if typed.out is not None and Path(typed.out).is_file():
        raise InputError(f"out: {typed.out} is a file; choose a folder")
    return Job(
        [] if source else _folders(typed.runs),
        source,
        target,
        None if typed.out is None else Path(typed.out),
        typed.reference,
        typed.incomplete,
        Rule(typed.margin, typed.min_patients, typed.min_seeds, typed.blackout_share),
        typed.by,
    )


def _online(runs: Any) -> Online | None:
    if not str(runs).startswith(ONLINE):
        return None
    entity, _, project = runs.removeprefix(ONLINE).rpartition("/")
    if not project or "/" in entity:
        raise InputError(f"runs: write a W&B project as {ONLINE}ENTITY/PROJECT; got {runs!r}")
    return Online(project, entity or None)


def _folders(runs: Any) -> list[Path]:
    given = list(runs) if OmegaConf.is_list(runs) else [runs]
    if not given or not all(isinstance(place, str) and place for place in given):
        raise InputError(f"runs must be a folder or a list of folders, 'runs=[A,B]'; got {runs}")
    for place in given:
        if not Path(place).is_dir():
            raise InputError(f"runs: there is no folder {place}")
    return [Path(place) for place in given]
