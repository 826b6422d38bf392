"""The keys of `conf/remedies.yaml`, checked before anything heavy is imported."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError, check_choice

OWN = ("seeds", "only", "remedies")
# The keys of data that leave the study table as it is.
LOADING = ("batch_size", "num_workers", "sampler", "augment", "image_px")


class Remedies(NamedTuple):
    """The checked configuration of each run, by name; the first is compared with."""

    runs: dict[str, Train]
    seeds: int


def check_remedies(cfg: DictConfig, overrides: Sequence[str] = ()) -> Remedies:
    """A composed `conf/remedies.yaml` as typed configurations; see `schema.check`.

    Raises:
        InputError: also for a remedy that is no list of overrides, that changes the study table,
            or that leaves nothing to compare; for several processes.
    """
    if cfg.run.resume is not None:
        raise InputError("run.resume: give the folder as run.dir, what is done there stays")
    if not isinstance(cfg.seeds, int) or isinstance(cfg.seeds, bool) or cfg.seeds < 1:
        raise InputError(f"seeds must be a whole number of at least 1; got {cfg.seeds}")
    common = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in OWN])
    shared = check_train(common)
    runs = {}
    for name, changes in _chosen(OmegaConf.to_container(cfg)).items():
        runs[name] = _changed(common, name, changes)
        _check_run(shared, name, runs[name])
    return Remedies(runs, cfg.seeds)


def folder_name(remedy: str) -> str:
    """What its run folders start with."""
    return remedy.replace(" ", "-").replace("/", "by")


def on_cached_features(cfg: Train) -> bool:
    """Whether each image has the same features in every epoch, so that they are computed once."""
    return cfg.backbone.frozen and not cfg.data.augment


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """Dotted names of what differs between two nested configurations.

    >>> list(differences({"seed": 1, "head": {"width": 8}}, {"seed": 1, "head": {"width": 9}}))
    ['head.width']
    """
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}"


def _chosen(cfg: Any) -> dict[str, Any]:
    """The changes of each remedy that `only` names, or of all."""
    remedies, only = cfg["remedies"], cfg["only"]
    if not isinstance(remedies, dict) or not remedies:
        raise InputError(
            "remedies must map names to overrides, as 'remedies={none: [], a: [KEY=V]}'"
        )
    if not isinstance(only, list | None):
        raise InputError(f"only must be a list of names, written 'only=[{only}]'; got {only!r}")
    remedies = {str(name): changes for name, changes in remedies.items()}
    _check_folders(list(remedies))
    names = [str(name) for name in only or remedies]
    for name in names:
        check_choice("only", name, remedies)
    return {name: remedies[name] for name in names}


def _check_folders(names: Sequence[str]) -> None:
    taken: dict[str, str] = {}
    for name in names:
        folder = folder_name(name).casefold()  # some file systems do not tell the case
        if folder in taken:
            raise InputError(
                f"remedies {taken[folder]!r} and {name!r} would share the folder "
                f"{folder_name(name)}-s...; rename one of them"
            )
        taken[folder] = name


def _changed(common: DictConfig, name: str, changes: Any) -> Train:
    if not isinstance(changes, list) or not all("=" in str(change) for change in changes):
        raise InputError(f"remedies.{name} must be a list of KEY=VALUE; got {changes}")
    cfg: Any = OmegaConf.create(OmegaConf.to_container(common))
    try:
        cfg.merge_with_dotlist([str(change) for change in changes])
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"remedies.{name}: {str(error).splitlines()[0]}") from None
    return check_train(cfg)


def _check_run(shared: Train, name: str, cfg: Train) -> None:
    trainer, diagnostics = cfg.trainer, cfg.diagnostics
    for key in differences(_plain(shared), _plain(cfg)):
        section, _, rest = key.partition(".")
        if key == "seed" or (section == "data" and rest.partition(".")[0] not in LOADING):
            raise InputError(
                f"remedies.{name} changes {key}, but all remedies share one study table and its "
                f"seeds; set {key} for all of them"
            )
    one_device = re.fullmatch(r"1|\[\d+\]", str(trainer.devices))
    if not one_device or trainer.strategy != "auto" or trainer.num_nodes != 1:
        raise InputError("remedies are compared in one process; use trainer=auto or trainer=gpu")
    if not diagnostics.enabled:
        raise InputError(
            f"diagnostics.enabled=false leaves remedies.{name} without the census that is "
            "compared; set it to true"
        )
    if on_cached_features(cfg) and not all(p.startswith("head.") for p in diagnostics.layers):
        raise InputError(
            "behind cached features only head.activation can be watched; set "
            f"diagnostics.layers=[head.activation] for remedies.{name}, or backbone.frozen=false"
        )


def _plain(cfg: Train) -> dict[str, Any]:
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]
