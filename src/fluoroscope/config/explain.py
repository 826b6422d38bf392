"""The keys of `conf/explain.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import schema
from fluoroscope.config.one_device import OneDevice
from fluoroscope.config.place_checks import (
    check_checkpoints,
    check_exists,
    check_new_folder,
    checkpoints_of,
    find_checkpoint,
)
from fluoroscope.config.run_checks import is_multirun
from fluoroscope.config.schema import number, one_of, ruled
from fluoroscope.errors import InputError, shown

GRAD_CAM, INTEGRATED = METHODS = ("gradcam", "integrated_gradients")
BASELINES = ("mean", "black", "blurred")
AUTO = "auto"
RESULT = "explanation.json"


def check_methods(key: str, value: list[str]) -> None:
    """Check `methods`.

    Raises:
        InputError: there is none, or one twice.
    """
    if not value or len({*value}) < len(value):
        raise InputError(f"{key} must list one or both of {', '.join(METHODS)}; got {shown(value)}")


def check_labels(key: str, value: list[str] | None) -> None:
    """Check `labels`.

    Raises:
        InputError: the list is empty.
    """
    if value is not None and not value:
        raise InputError(f"{key} must list labels, or be null; got []")


@dataclass
class ExplainData:
    root: str | None = MISSING
    label_map: dict[str, str] = MISSING


@dataclass
class ExplainRun:
    dir: str = MISSING
    name_images: bool = MISSING


@dataclass
class Explain:
    """`conf/explain.yaml`."""

    checkpoint: Any = ruled(check_checkpoints)  # noqa: RUF009
    images: str | None = MISSING
    split: str = one_of("val", "test")
    boxes: str | None = MISSING
    labels: list[str] | None = ruled(check_labels)  # noqa: RUF009
    methods: list[str] = field(
        default=MISSING, metadata={"choices": METHODS, "rule": check_methods}
    )
    steps: int = number(2, 1000)
    baseline: str = one_of(*BASELINES)
    films: int | None = number(1)
    units: int = number(1)
    data: ExplainData = field(default_factory=ExplainData)
    trainer: OneDevice = field(default_factory=OneDevice)
    run: ExplainRun = field(default_factory=ExplainRun)


class Job(NamedTuple):
    """What to explain, and how; the fields are keys of `conf/explain.yaml`.

    Attributes:
        checkpoints: of `checkpoint`, each an existing file.
    """

    checkpoints: list[Path]
    images: Path | None
    split: str
    boxes: str | None
    labels: list[str] | None
    methods: list[str]
    steps: int
    baseline: str
    films: int | None
    units: int
    root: str | None
    label_map: dict[str, str]
    accelerator: str
    folder: Path
    name_images: bool


def check_explain(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """Convert a composed `conf/explain.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also for a file or folder that does not exist, and a `run.dir` that is used.
    """
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise InputError("checkpoint is not set; add checkpoint=RUN, the folder of a run")
    typed: Explain = schema.check(cfg, Explain())
    _check_places(typed)
    if not is_multirun():
        _check_unused(typed.run.dir)
    return Job(
        [find_checkpoint(place) for place in checkpoints_of(typed)],
        None if typed.images is None else Path(typed.images),
        typed.split,
        typed.boxes,
        None if typed.labels is None else list(dict.fromkeys(typed.labels)),
        list(typed.methods),
        *(typed.steps, typed.baseline, typed.films, typed.units),
        *(typed.data.root, dict(typed.data.label_map), typed.trainer.accelerator),
        *(Path(typed.run.dir), typed.run.name_images),
    )


def _check_places(typed: Explain) -> None:
    if typed.images is not None:
        check_exists("images", typed.images)
        if typed.boxes == AUTO:
            raise InputError(
                "boxes=auto reads the run's own collection; with images give boxes=FILE"
            )
        if len(checkpoints_of(typed)) > 1:
            raise InputError(
                "images are explained by one model; give one checkpoint, or leave images out so "
                "that each film of the split is explained by the model that has not seen it"
            )
    if typed.boxes not in (None, AUTO):
        check_exists("boxes", str(typed.boxes))
    if typed.data.label_map and typed.boxes is None:
        raise InputError("data.label_map names labels of boxes; add boxes=auto or boxes=FILE")
    if typed.data.root is not None and not Path(typed.data.root).is_dir():
        raise InputError(f"data.root: there is no directory {typed.data.root}")


def _check_unused(folder: str) -> None:
    check_new_folder(folder, can_resume=False)
    if (Path(folder) / RESULT).exists():
        raise InputError(f"{folder} already holds explanations; give another run.dir")
