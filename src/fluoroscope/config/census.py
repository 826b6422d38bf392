"""The keys of `conf/census.yaml`, checked before anything heavy is imported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import sources
from fluoroscope.choices import check_weights, is_number
from fluoroscope.config.data_keys import Data
from fluoroscope.config.library_names import check_network
from fluoroscope.config.place_checks import check_exists, check_new_folder, find_checkpoint
from fluoroscope.config.run_checks import is_multirun
from fluoroscope.config.schema import check, number, plain, ruled
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError, NotHereError, check_file, shown
from fluoroscope.launch.hub_check import check_hub
from fluoroscope.model.contracts import HUB, XRV, check_source
from fluoroscope.own_code import check_findable

TIMM, RUN, OWN = "timm", "run", "own"
OWN_CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
SMALL = "model=timm/tf_efficientnet_lite0 backbone.weights=package"
KINDS = "timm/NAME, a run folder or a checkpoint, or mypkg.nets:make"
SECTIONS = {  # of conf/train.yaml, that a network of each kind reads
    TIMM: ("backbone.weights", "backbone.file", "backbone.args", "backbone.contract"),
    RUN: (),
    OWN: ("backbone.args", "input.mean", "input.std"),
}
READ = ("data", "backbone", "trainer", "run")  # sections of conf/train.yaml
OF_EVERY = ("trust", "trainer.accelerator", "run.dir", "experiment")


def check_side(key: str, value: Any) -> None:
    """Check `input.mean` or `input.std`.

    Raises:
        InputError: it is neither null nor a number nor a list of them; a std is not above 0.
    """
    listed = value if isinstance(value, list) else [value]
    lowest = 0 if key.endswith("std") else float("-inf")
    if value is not None and not (listed and all(is_number(v) and v > lowest for v in listed)):
        above = " above 0" if lowest == 0 else ""
        raise InputError(f"{key} must be a number{above}, or a list of them; got {shown(value)}")


@dataclass
class Input:
    mean: Any = ruled(check_side)  # noqa: RUF009
    std: Any = ruled(check_side)  # noqa: RUF009


@dataclass
class Census:
    """The keys that `conf/census.yaml` adds to those of `conf/train.yaml`."""

    model: str = MISSING
    images: str | None = MISSING
    films: int | None = number(1)
    layers: list[str] = MISSING
    input: Input = field(default_factory=Input)


class Job(NamedTuple):
    """A network, and the images to count its units on.

    Attributes:
        kind: `TIMM`, `RUN` or `OWN`.
        network: timm's name; the checkpoint; or the import path, with dots alone.
        backbone: `backbone.*` as far as they are set.
        mean, std: of the input of a network of the user's own.
        images: a file or a folder; None if the images are those of `data`.
        data: the section of the configuration; without a source, the run's own data.
        image_px, batch_size: None if they are not set.
        films: that are used at most.
        layers: patterns.
    """

    kind: str
    network: str
    backbone: dict[str, Any]
    mean: list[float]
    std: list[float]
    images: Path | None
    data: dict[str, Any]
    image_px: int | None
    batch_size: int | None
    num_workers: int | None
    films: int | None
    layers: list[str]
    accelerator: str
    folder: Path


def check_census(cfg: DictConfig, overrides: Sequence[str] = ()) -> Job:
    """Convert a composed `conf/census.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also for a network, images or a folder that cannot be used.
    """
    if OmegaConf.is_missing(cfg, "model"):
        raise InputError(f"model is not set; set it to {KINDS}")
    mine = list(Census.__dataclass_fields__)
    own: Census = check(OmegaConf.masked_copy(cfg, mine), Census())
    kind, network = _kind(own.model)
    _refuse_foreign(kind, [override.partition("=")[0].lstrip("+~") for override in overrides])
    source = OmegaConf.select(cfg, "data.source")
    keys = Data if source is None else sources.keys_of(str(source))
    others = OmegaConf.create(_set({name: plain(cfg[name]) for name in READ}))
    given = _set(plain(check(others, Train(data=keys()), whole=False)))
    backbone, data = _of_kind(given["backbone"], kind), given["data"]
    _check_network(kind, network, own.input, backbone)
    _check_images(own.images, data, kind)
    if not own.layers:
        raise InputError("layers must list names or patterns; got []")
    if kind == OWN and "image_px" not in data:
        raise InputError(
            "data.image_px is not set; add data.image_px=SIDE, or what the network needs"
        )
    if not is_multirun():
        check_new_folder(given["run"]["dir"], can_resume=False)
    return Job(
        kind,
        network,
        backbone,
        _listed(own.input.mean),
        _listed(own.input.std),
        images=None if own.images is None else Path(own.images),
        data=data,
        image_px=data.get("image_px"),
        batch_size=data.get("batch_size"),
        num_workers=data.get("num_workers"),
        films=own.films,
        layers=list(own.layers),
        accelerator=given["trainer"]["accelerator"],
        folder=Path(given["run"]["dir"]),
    )


def _kind(model: str) -> tuple[str, str]:
    """What `model` names; a place wins over code of the same name."""
    if model.startswith("timm/"):
        return TIMM, model.removeprefix("timm/")
    if model.startswith((HUB, XRV)):
        return TIMM, model
    if Path(model).exists():
        return RUN, model
    if OWN_CODE.fullmatch(model):
        return OWN, model.replace(":", ".")
    try:
        check_network("model", model)
    except InputError:
        raise NotHereError(f"model: there is no file or folder {model}; give {KINDS}") from None
    raise InputError(f"model={model} is the name of a network of timm; write model=timm/{model}")


def _refuse_foreign(kind: str, given: Sequence[str]) -> None:
    """Refuse keys of a training, and keys that a network of this kind does not read."""
    known = (*Census.__dataclass_fields__, *OF_EVERY, *SECTIONS[kind], "data")
    for key in given:
        parts = key.split(".")
        if any(".".join(parts[:n]) in known for n in range(1, len(parts) + 1)) and not (
            parts[0] == "input" and kind != OWN
        ):
            continue
        network = {TIMM: "a network of timm", RUN: "a run", OWN: "a network of your own"}[kind]
        raise InputError(f"{key} is not read for the census of {network}; remove it, or see --help")


def _set(values: Any) -> Any:
    """The values without those that are not set."""
    if isinstance(values, Mapping):
        return {key: _set(value) for key, value in values.items() if value != MISSING}
    return values


def _of_kind(backbone: dict[str, Any], kind: str) -> dict[str, Any]:
    read = [key.removeprefix("backbone.") for key in SECTIONS[kind] if "backbone." in key]
    return {key: value for key, value in backbone.items() if key in read}


def _check_network(kind: str, network: str, side: Input, backbone: dict[str, Any]) -> None:
    if kind == RUN:
        find_checkpoint(network)
    elif kind == OWN:
        check_findable("model", network)
        mean, std = _listed(side.mean), _listed(side.std)
        if not mean or len(mean) != len(std):
            raise InputError(
                "input.mean and input.std must say what the network expects of a pixel, one number "
                "per channel; add e.g. input.mean=0.5 input.std=0.25, or 'input.mean=[...]'"
            )
    else:
        check_network("model", network)
        weights = backbone.setdefault("weights", "hub")
        check_weights(weights, backbone.get("file"), network.partition(".")[0])
        check_source(network, weights, backbone.get("contract") or {})
        if weights == "file":
            check_file("backbone.file", Path(str(backbone["file"])))
        elif weights == "hub":
            check_hub(network, SMALL)


def _check_images(images: str | None, data: dict[str, Any], kind: str) -> None:
    source = data.get("source")
    if images is not None:
        if source is not None:
            raise InputError("images= and data= both name images; remove one of them")
        check_exists("images", images)
    elif source is not None:
        sources.check_place({"root": None, **data})
    elif kind != RUN:
        raise InputError("no images are given; add images=FOLDER, or data=NAME data.root=DIR")
    elif isinstance(data.get("root"), str):
        sources.existing_root(data["root"])


def _listed(value: Any) -> list[float]:
    value = plain(value)
    return (
        [] if value is None else [float(v) for v in (value if isinstance(value, list) else [value])]
    )
