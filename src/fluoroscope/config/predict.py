"""The keys of `conf/predict.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import schema
from fluoroscope.config.one_device import OneDevice
from fluoroscope.config.place_checks import check_exists, check_new_file, find_checkpoint
from fluoroscope.config.schema import number
from fluoroscope.errors import InputError

SUFFIXES = (".csv", ".parquet")


@dataclass
class PredictData:
    batch_size: int = number(1)
    num_workers: int | None = number(0)


@dataclass
class Predict:
    """`conf/predict.yaml`."""

    checkpoint: str = MISSING
    images: str = MISSING
    path_column: str = MISSING
    out: str = MISSING
    point: str = MISSING
    strict: bool = MISSING
    data: PredictData = field(default_factory=PredictData)
    trainer: OneDevice = field(default_factory=OneDevice)


def check_predict(cfg: DictConfig, overrides: Sequence[str] = ()) -> Predict:
    """Convert a composed `conf/predict.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also for a place that does not exist, and a file that exists or cannot be
            written.
    """
    for key, value in (
        ("checkpoint", "RUN, a run folder or a checkpoint"),
        ("images", "FOLDER, an image file, a folder or a table"),
        ("out", "FILE.csv or out=FILE.parquet"),
    ):
        if OmegaConf.is_missing(cfg, key):
            raise InputError(f"{key} is not set; add {key}={value}")
    typed: Predict = schema.check(cfg, Predict())
    find_checkpoint(typed.checkpoint)
    check_exists("images", typed.images)
    if Path(typed.out).suffix not in SUFFIXES:
        raise InputError(f"out must end in {' or '.join(SUFFIXES)}; got {typed.out}")
    check_new_file("out", Path(typed.out))
    return typed
