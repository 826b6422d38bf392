"""The keys of `conf/dashboard.yaml`, checked before anything heavy is imported."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config import CONF, OPEN_KEYS, schema
from fluoroscope.config.rules import check_wandb_name
from fluoroscope.config.schema import ruled
from fluoroscope.config.trust import TRUST
from fluoroscope.errors import InputError, nearest

GROUPS = ("data", "trainer", "logger")  # folders of conf/ with keys of a run
# W&B refuses these kinds of characters in the name of a view.
SYMBOLS = ("So", "Sk", "Sm", "Sc", "Cs")


@dataclass
class Dashboard:
    """`conf/dashboard.yaml`."""

    project: str = ruled(check_wandb_name)
    entity: str | None = ruled(check_wandb_name)
    name: str = MISSING
    group_by: str = MISSING
    dry_run: bool = MISSING


def check_dashboard(cfg: DictConfig, overrides: Sequence[str] = ()) -> Dashboard:
    """Convert a composed `conf/dashboard.yaml` to typed values; see `schema.check`.

    Raises:
        InputError: also for a project or name that W&B would refuse, and for a `group_by` that is
            not a key of a run's configuration.
    """
    typed: Dashboard = schema.check(cfg, Dashboard())
    if not typed.name or any(unicodedata.category(c) in SYMBOLS for c in typed.name):
        raise InputError(f"name must be text without symbols such as emoji; got {typed.name!r}")
    known = run_keys()
    if typed.group_by not in known and not typed.group_by.startswith(OPEN_KEYS):
        near = nearest(typed.group_by, known)
        raise InputError(f"group_by: runs have no key {typed.group_by}{near}")
    return typed


def check_project(project: str, entity: str | None) -> None:
    """Refuse names that W&B does not accept.

    Raises:
        InputError: a name is empty, too long, or contains a character that W&B refuses.
    """
    check_wandb_name("project", project)
    check_wandb_name("entity", entity)


def run_keys() -> set[str]:
    """Dotted names of all keys that a run can have, with any choice of its groups."""
    keys = set(schema.keys(OmegaConf.load(CONF / "train.yaml")))
    for file in (file for group in GROUPS for file in (CONF / group).glob("*.yaml")):
        keys |= {f"{file.parent.name}.{key}" for key in schema.keys(OmegaConf.load(file))}
    of_command = ("hydra.", TRUST)
    return {k for k in keys if not k.startswith(of_command) and not k.endswith("defaults")}
