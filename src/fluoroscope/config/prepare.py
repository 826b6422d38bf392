"""The keys of `conf/prepare.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import sources
from fluoroscope.config import schema
from fluoroscope.config.library_names import check_network
from fluoroscope.config.schema import number, one_of
from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError, check_choice

AUDITS = ("true", "false", "only")
OWN_WITH_WEIGHTS = ("weights", "out")


@dataclass
class Prepare:
    """The keys that `conf/prepare.yaml` adds to those of `conf/train.yaml`."""

    weights: Any = MISSING
    size: int = number(32)
    format: str = one_of("png", "jpeg", "stored")
    audit: Any = MISSING
    name_images: bool = MISSING
    out: str | None = MISSING


class Job(NamedTuple):
    """Weights to fetch, by timm's names, and the folder to write them to."""

    weights: list[str]
    out: Path


class Audit(NamedTuple):
    """A collection to audit, and the folder of the report; None means the run folder."""

    train: Train  # only its `data` is used
    out: Path | None
    name_images: bool = False


class Copy(NamedTuple):
    """A collection to copy, after an audit if `audit` is true."""

    train: Train  # only its `data` is used
    out: Path
    size: int = 512
    format: str = "png"
    audit: bool = True
    name_images: bool = False


def check_prepare(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job | Audit | Copy:
    """Convert a composed `conf/prepare.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also if there is nothing to do, or if `out` cannot be used.
    """
    mine = list(Prepare.__dataclass_fields__)
    own: Prepare = schema.check(OmegaConf.masked_copy(cfg, mine), Prepare())
    given = [override.partition("=")[0].lstrip("+~") for override in overrides]
    _refuse_foreign(given, mine)
    if own.weights is not None:
        return _weights(own, given)
    if "data" not in given:
        raise InputError(
            "nothing to prepare: add data=NAME data.root=DIR size=512 to make a resized copy of a "
            "collection, or weights=NAME to fetch a backbone's weights"
        )
    others = [str(name) for name in cfg if name not in mine]
    return _copy(own, check_train(OmegaConf.masked_copy(cfg, others), overrides))


def check_job(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job | Audit | Copy:
    """`check_prepare`, and refuse a collection that is not there: nothing heavy is imported."""
    job = check_prepare(cfg, overrides)
    if not isinstance(job, Job):
        sources.check_place(schema.plain(job.train.data))
    return job


def _refuse_foreign(given: Sequence[str], mine: Sequence[str]) -> None:
    for key in given:
        if key.partition(".")[0] not in ("data", *mine):
            raise InputError(
                f"{key} is not a key of this command, which takes {', '.join(mine)} and data.*"
            )


def _weights(own: Prepare, given: Sequence[str]) -> Job:
    names = list(own.weights) if OmegaConf.is_list(own.weights) else [own.weights]
    if not names:
        raise InputError("weights is empty; set weights=NAME, or several as 'weights=[A,B]'")
    if not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"weights must be a timm name or a list of them, 'weights=[A,B]'; got {own.weights}"
        )
    for key in given:
        if key not in OWN_WITH_WEIGHTS:
            raise InputError(f"weights= and {key}= cannot be combined; remove one of them")
    for name in names:
        check_network("weights", name)
    return Job(list(dict.fromkeys(names)), _folder(own.out or "weights"))


def _copy(own: Prepare, train: Train) -> Audit | Copy:
    audit = str(own.audit).lower()
    check_choice("audit", audit, AUDITS)
    if audit == "only":
        folder = None if own.out is None else _folder(own.out)
        return Audit(train, folder, own.name_images)
    if not isinstance(train.data.root, str | None):
        raise InputError("data.root: a copy is made of one collection; give one directory")
    out = _folder(own.out or f"data/{train.data.source}-{own.size}px")
    if train.data.root is not None:
        root = Path(train.data.root).expanduser().resolve()
        if out.resolve().is_relative_to(root):
            raise InputError(f"out: {out} lies in data.root={root}; choose a folder outside it")
    return Copy(train, out, own.size, own.format, audit == "true", own.name_images)


def _folder(name: str) -> Path:
    out = Path(name).expanduser()
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; choose a folder")
    return out
