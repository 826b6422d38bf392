"""The keys of `conf/doctor.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import schema
from fluoroscope.config.run_checks import is_multirun
from fluoroscope.config.schema import number
from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError


@dataclass
class Doctor:
    """The keys that `conf/doctor.yaml` adds to those of `conf/train.yaml`."""

    wait_s: float = number(0, 60, "(]")
    look_s: float = number(1)
    json: bool = MISSING


class Job(NamedTuple):
    """The run that this machine is checked for, times in seconds, and the form of the output."""

    train: Train
    wait_s: float
    look_s: float
    json: bool


def check_doctor(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """Convert a composed `conf/doctor.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also for keys of a run that cannot be, and for several runs.
    """
    if is_multirun():
        raise InputError("-m is for several runs; check the machine for one of them")
    mine = list(Doctor.__dataclass_fields__)
    own: Doctor = schema.check(OmegaConf.masked_copy(cfg, mine), Doctor())
    if cfg.run.resume is not None:
        raise InputError("run.resume names another machine's choices; give the keys of the run")
    others = [str(name) for name in cfg if name not in mine]
    train = check_train(OmegaConf.masked_copy(cfg, others), overrides)
    return Job(train, own.wait_s, own.look_s, own.json)
