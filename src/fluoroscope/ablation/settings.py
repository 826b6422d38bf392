"""The keys of `conf/remedies.yaml`, checked before anything heavy is imported."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fluoroscope.config import Train, check_train
from fluoroscope.errors import InputError, check_choice

OWN = ("seeds", "only", "remedies")


class Remedies(NamedTuple):
    """The checked configuration of each run, by name; the first is compared with."""

    runs: dict[str, Train]
    seeds: int


def check_remedies(cfg: DictConfig, overrides: Sequence[str] = ()) -> Remedies:
    """A composed `conf/remedies.yaml` as typed configurations; see `schema.check`.

    Raises:
        InputError: also for a remedy that is no list of overrides.
    """
    if cfg.run.resume is not None:
        raise InputError("run.resume: give the folder as run.dir, what is done there stays")
    if not isinstance(cfg.seeds, int) or isinstance(cfg.seeds, bool) or cfg.seeds < 1:
        raise InputError(f"seeds must be a whole number of at least 1; got {cfg.seeds}")
    common = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in OWN])
    remedies: Any = OmegaConf.to_container(cfg).get("remedies")  # type: ignore[union-attr]
    if not isinstance(remedies, dict) or not remedies:
        raise InputError(
            "remedies must map names to overrides, as 'remedies={none: [], a: [KEY=V]}'"
        )
    for name in cfg.only or []:
        check_choice("only", name, remedies)
    remedies = {name: remedies[name] for name in cfg.only or remedies}
    return Remedies({str(k): _changed(common, str(k), v) for k, v in remedies.items()}, cfg.seeds)


def _changed(common: DictConfig, name: str, changes: Any) -> Train:
    if not isinstance(changes, list) or not all("=" in str(change) for change in changes):
        raise InputError(f"remedies.{name} must be a list of KEY=VALUE; got {changes}")
    cfg: Any = OmegaConf.create(OmegaConf.to_container(common))
    try:
        cfg.merge_with_dotlist([str(change) for change in changes])
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"remedies.{name}: {str(error).splitlines()[0]}") from None
    return check_train(cfg)
