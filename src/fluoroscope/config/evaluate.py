"""The keys of `conf/evaluate.yaml`, checked before anything heavy is imported."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import sources
from fluoroscope.config.data_keys import Data
from fluoroscope.config.place_checks import (
    check_checkpoints,
    check_new_folder,
    checkpoints_of,
    find_checkpoint,
)
from fluoroscope.config.point_names import check_point
from fluoroscope.config.run_checks import is_multirun
from fluoroscope.config.schema import check, number, one_of, plain, ruled
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError, NotHereError
from fluoroscope.launch import launch_check
from fluoroscope.model.score_names import check_scores


def check_points(key: str, names: list[str]) -> None:
    """Refuse operating points that do not exist, and none at all.

    Raises:
        InputError: `points: there is no operating point 'youdn'; use youden, or ...`.
    """
    try:
        for name in names:
            check_point(name)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    if not names or len(set(names)) < len(names):
        raise InputError(f"{key} must list different operating points; got [{', '.join(names)}]")


@dataclass
class EvaluateRun:
    dir: str = MISSING
    name_images: bool = MISSING


@dataclass
class Evaluate:
    """The keys of `conf/evaluate.yaml` other than changes to the training's configuration."""

    checkpoint: Any = ruled(check_checkpoints)  # noqa: RUF009
    split: str = one_of("val", "test", "all")
    already_seen: str = one_of("refuse", "allow")
    points: list[str] = ruled(check_points)  # noqa: RUF009
    scores: list[str] | None = ruled(check_scores)  # noqa: RUF009
    prevalence: float | None = number(0, 1, "()")
    subgroups: list[str] | None = MISSING
    against: str | None = MISSING
    margin: float = number(0, 1)
    recalibrate: float | None = number(0, 1, "()")
    probes: bool = MISSING
    masks: str | None = MISSING
    run: EvaluateRun = field(default_factory=EvaluateRun)


def check_evaluate(cfg: DictConfig, overrides: Sequence[str] = ()) -> DictConfig:
    """Check a composed `conf/evaluate.yaml` as far as possible without reading the checkpoint."""
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise InputError("checkpoint is not set; add checkpoint=RUN/checkpoints/best.ckpt")
    own = [entry.name for entry in fields(Evaluate)]
    cfg.merge_with(check(OmegaConf.masked_copy(cfg, own), Evaluate()))
    if cfg.split == "all" and OmegaConf.select(cfg, "data.source") is None:
        raise InputError("split=all would score the training images too; give another data=")
    if cfg.recalibrate is not None and OmegaConf.select(cfg, "data.source") is None:
        raise InputError(
            "recalibrate fits the calibration again on another collection; add data=, or remove "
            "recalibrate"
        )
    _check_probes(cfg)
    _check_changes(cfg)
    if is_multirun() and cfg.trainer.devices not in (None, 1):
        raise InputError("with -m each evaluation runs in one process; remove trainer.devices")
    devices = 1 if cfg.trainer.devices is None else cfg.trainer.devices
    launch_check.check_launch(launch_check.OneMachine(devices), os.environ, is_multirun())
    if not is_multirun():
        check_new_folder(cfg.run.dir, can_resume=False)
    for place in [*checkpoints_of(cfg), *([cfg.against] if cfg.against is not None else [])]:
        find_checkpoint(place)
    return cfg


def _check_probes(cfg: DictConfig) -> None:
    masks = cfg.masks
    if cfg.probes and len(checkpoints_of(cfg)) > 1:
        raise InputError("probes=true looks at one model; give one checkpoint, not a list")
    if masks is not None and not cfg.probes:
        raise InputError(f"masks={masks} is only read with probes=true; add it, or remove masks")
    if masks is not None and not Path(masks).is_dir():
        raise NotHereError(f"masks: there is no directory {masks}")


def _check_changes(cfg: DictConfig) -> None:
    """Refuse changes that are invalid for every training configuration."""
    source = OmegaConf.select(cfg, "data.source")
    keys = Data if source is None else sources.keys_of(str(source))
    # If no source is given, only the keys that every source has can be checked.
    data = {k: v for k, v in plain(cfg.data).items() if source or k in Data.__dataclass_fields__}
    given = {
        name: {key: value for key, value in section.items() if value is not None}
        for name, section in (("data", data), ("trainer", plain(cfg.trainer)))
    }
    check(OmegaConf.create(given), Train(data=keys()), whole=False)
    if source is not None:  # that of the checkpoint may be given by data.root alone
        sources.check_place(data)
    elif isinstance(cfg.data.root, str) and cfg.data.root:
        sources.existing_root(cfg.data.root)
