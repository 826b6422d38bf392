"""The keys of `conf/demo.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import schema
from fluoroscope.config.one_device import OneDevice
from fluoroscope.config.place_checks import find_checkpoint
from fluoroscope.config.schema import number
from fluoroscope.errors import InputError

PACKAGES = ("starlette", "uvicorn")


@dataclass
class Demo:
    """`conf/demo.yaml`."""

    checkpoint: str = MISSING
    point: str = MISSING
    host: str = MISSING
    port: int = number(0, 65535)
    max_mib: int = number(1, 256)
    trainer: OneDevice = field(default_factory=OneDevice)


def check_demo(cfg: DictConfig, overrides: Sequence[str] = ()) -> Demo:
    """Convert a composed `conf/demo.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also if there is no checkpoint, or a package of the extra is missing.
    """
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise InputError("checkpoint is not set; add checkpoint=RUN, a run folder or a checkpoint")
    typed: Demo = schema.check(cfg, Demo())
    find_checkpoint(typed.checkpoint)
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(
            f"the page needs the package {missing[0]}; install it with pip install "
            "'fluoroscope[demo]', or pip install -e '.[demo]' in a checkout"
        )
    return typed
