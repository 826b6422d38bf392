"""The keys of `conf/prepare.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import schema
from fluoroscope.errors import InputError


@dataclass
class Prepare:
    """`conf/prepare.yaml`."""

    weights: Any = MISSING
    out: str = MISSING


class Job(NamedTuple):
    """Weights to be had, by timm's names, and the folder for them."""

    weights: list[str]
    out: Path


def check_prepare(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """A composed `conf/prepare.yaml` as typed values; see `schema.check`.

    Raises:
        InputError: also where there is nothing to do, or the folder is a file.
    """
    typed: Prepare = schema.check(cfg, Prepare())
    given = typed.weights
    names = list(given) if OmegaConf.is_list(given) else [given]
    if names in ([], [None]):
        raise InputError("say what to fetch: weights=NAME, or several as 'weights=[A,B]'")
    if not all(isinstance(name, str) and name for name in names):
        raise InputError(f"weights must be timm's names, as 'weights=[A,B]'; got {given}")
    out = Path(typed.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; give a folder")
    return Job(list(dict.fromkeys(names)), out)
