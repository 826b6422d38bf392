"""The keys of `conf/census.yaml`, checked before anything heavy is imported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import sources
from fluoroscope.choices import check_weights
from fluoroscope.config.data_keys import Data
from fluoroscope.config.library_names import check_network
from fluoroscope.config.place_checks import check_exists, check_new_folder, find_checkpoint
from fluoroscope.config.run_checks import is_multirun
from fluoroscope.config.schema import check, number, plain
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError, NotHereError, check_file
from fluoroscope.launch.hub_check import check_hub
from fluoroscope.model.contracts import EXAMPLE, HUB, XRV, check_contract, check_source
from fluoroscope.own_code import check_findable

TIMM, RUN, OWN = "timm", "run", "own"
OWN_CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
SMALL = "model=timm/tf_efficientnet_lite0 backbone.weights=package"
KINDS = "timm/NAME, a run folder or a checkpoint, or mypkg.nets:make"
SECTIONS = {  # of conf/train.yaml, that a network of each kind reads
    TIMM: ("backbone.weights", "backbone.file", "backbone.args", "backbone.contract"),
    RUN: (),
    OWN: ("backbone.args", "backbone.contract"),
}
READ = ("data", "backbone", "trainer", "run")  # sections of conf/train.yaml
OF_EVERY = ("trust", "trainer.accelerator", "run.dir", "experiment")


@dataclass
class Census:
    """The keys that `conf/census.yaml` adds to those of `conf/train.yaml`."""

    model: str = MISSING
    images: str | None = MISSING
    films: int | None = number(1)
    layers: list[str] = MISSING


class Job(NamedTuple):
    """A network, and the images to count its units on.

    Attributes:
        kind: `TIMM`, `RUN` or `OWN`.
        network: timm's name; the checkpoint; or the import path, with dots alone.
        backbone: `backbone.*` as far as they are set.
        images: a file or a folder; None if the images are those of `data`.
        data: the section of the configuration; without a source, the run's own data.
        image_px, batch_size: None if they are not set.
        films: that are used at most.
        layers: patterns.
    """

    kind: str
    network: str
    backbone: dict[str, Any]
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
    _check_network(kind, network, backbone)
    _check_images(own.images, data, kind)
    if not own.layers:
        raise InputError("layers must list names or patterns; got []")
    if not is_multirun():
        check_new_folder(given["run"]["dir"], can_resume=False)
    return Job(
        kind,
        network,
        backbone,
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
        if any(".".join(parts[:n]) in known for n in range(1, len(parts) + 1)):
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


def _check_network(kind: str, network: str, backbone: dict[str, Any]) -> None:
    if kind == RUN:
        find_checkpoint(network)
    elif kind == OWN:
        check_findable("model", network)
        contract = backbone.get("contract") or {}
        if not contract:
            raise InputError(
                "backbone.contract is not set, and nothing else says which pixels a network of "
                f"your own expects; set, for example, {EXAMPLE}"
            )
        check_contract("backbone.contract", contract)
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
