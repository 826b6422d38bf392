"""The keys of `conf/sync.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import schema
from fluoroscope.config.rules import check_wandb_name
from fluoroscope.config.schema import ruled
from fluoroscope.errors import InputError


@dataclass
class Sync:
    """`conf/sync.yaml`."""

    runs: Any = MISSING
    project: str = ruled(check_wandb_name)
    entity: str | None = ruled(check_wandb_name)
    dry_run: bool = MISSING


class Job(NamedTuple):
    """Folders to search for runs; with `dry_run` the runs are only listed.

    Runs of another project or entity are left out: a folder from elsewhere does not choose where
    its data go.
    """

    places: list[Path]
    dry_run: bool
    project: str
    entity: str | None


def check_sync(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """Convert a composed `conf/sync.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also if `runs` is not a folder.
    """
    typed: Sync = schema.check(cfg, Sync())
    given = list(typed.runs) if OmegaConf.is_list(typed.runs) else [typed.runs]
    if not given or not all(isinstance(place, str) and place for place in given):
        raise InputError(f"runs must be a folder or a list, 'runs=[A,B]'; got {typed.runs}")
    for place in given:
        if not Path(place).is_dir():
            raise InputError(f"runs: there is no folder {place}")
    return Job([Path(place) for place in given], typed.dry_run, typed.project, typed.entity)
