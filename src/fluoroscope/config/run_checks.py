"""Rules that concern several keys of a run: resuming, remedies, cached features."""

import copy
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fluoroscope import sources
from fluoroscope.choices import check_weights
from fluoroscope.config import rules, schema
from fluoroscope.config.added import WORDS, check_repeated, is_of_added
from fluoroscope.config.loaded import announce_today, decide_today, load_file, value_at
from fluoroscope.config.trust import TRUST, check_code
from fluoroscope.errors import InputError, changes, check_choice, shown
from fluoroscope.launch import launch_check
from fluoroscope.launch.run_id import identity
from fluoroscope.launch.run_status import CONFIG
from fluoroscope.model.activations import check_activation
from fluoroscope.model.contracts import check_source
from fluoroscope.model.score_names import KEY as SCORES
from fluoroscope.own_code import check_trusted

# Sections that a resumed run can change. The optimizer's settings come from the checkpoint.
RESUMABLE = ("data", "trainer", "logger", "run", "diagnostics")
# Keys of `data` that change the images a network sees. The fingerprint of the studies covers those
# that change its rows, patients, splits and labels.
PIXELS = ("image_px", "augment", "feature_views", "film_px", "subtlety", "size_px")
# Keys in these sections that cannot change after the first step.
FIXED = ("diagnostics.enabled", "run.remedy", *(f"data.{key}" for key in PIXELS))
# Keys for debugging that stand for other keys, and their rules.
DEBUGGING = {"fast_dev_run": rules.check_fast_dev_run, "overfit_batches": rules.check_limit}


def is_of_model(key: str) -> bool:
    """Whether a key cannot change at a resume."""
    return key.partition(".")[0] not in (*RESUMABLE, *WORDS) or key in FIXED


def resumed(cfg: DictConfig, overrides: Sequence[str], keys: Any) -> DictConfig:
    """The configuration of the run that `run.resume` names, changed by the command line.

    Args:
        cfg: from `added.with_added`.
        keys: the dataclass `Train`.

    Raises:
        InputError: the folder holds no run, or one with code that is not trusted or a callback
            that this command does not name, or an override would change the model or the data.
    """
    file = Path(cfg.run.resume) / CONFIG
    if not file.is_file():
        raise InputError(f"run.resume: {file.parent} holds no run (it has no {CONFIG})")
    before = load_file(file, keys).announced()
    check_code(before, file)
    for path in before.get(SCORES, []):
        check_trusted(SCORES, path, file)
    check_repeated(before, cfg, file)
    changed = decide_today(before, cfg)
    for override in overrides:
        key = override.split("=")[0].lstrip("+~")
        # As `trust`, it allows the import.
        repeated = key.startswith("head.activation") or key == SCORES
        if key in FIXED or repeated:
            _check_same(key, value_at(before, key), schema.plain(OmegaConf.select(cfg, key)))
        if repeated or key == TRUST or is_of_added(key, cfg):
            continue
        if key == "logger":  # a group, whose keys other than W&B's are added loggers
            changed.logger = cfg.logger
            continue
        if key.partition(".")[0] not in RESUMABLE or key in RESUMABLE:
            raise InputError(
                f"run.resume continues the same model on the same data: {override} needs a new "
                f"run; only single keys of {', '.join(RESUMABLE)} can change"
            )
        OmegaConf.update(changed, key, OmegaConf.select(cfg, key), force_add=True)
    announce_today(before, changed, str(file))
    return changed


def _check_same(key: str, then: Any, now: Any) -> None:
    if then != now:
        raise InputError(
            f"run.resume continues the same model on the same images: {key} is {shown(then)}, and "
            f"{shown(now)} needs a new run"
        )


def check_auto(overrides: Sequence[str]) -> None:
    """Refuse `run.resume=auto` where the run folder is named after the time.

    Raises:
        InputError: add `run.dir`.
    """
    named = any(override.startswith("run.dir=") for override in overrides)
    if not named and not _in_sweep() and re.fullmatch(r"[\d_-]+", identity(os.environ)):
        raise InputError(
            "run.resume=auto needs the same run folder in every call: add run.dir=FOLDER (in a "
            "SLURM job the folder is named after the job's id)"
        )


def _in_sweep() -> bool:
    """Whether this is a command with -m, or a process that its launcher started."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    started = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return started or is_multirun()


def is_multirun() -> bool:
    return any(word in sys.argv for word in ("-m", "--multirun"))


def apply_remedy(cfg: DictConfig) -> DictConfig:
    """The configuration with the overrides that `remedies` lists under the name `run.remedy`.

    Without `remedies` in the configuration, the name has no effect.

    Raises:
        InputError: the name is unknown, or its remedy is not a list of overrides.
    """
    if "remedies" not in cfg:
        return cfg
    config: Any = OmegaConf.to_container(cfg)
    remedies, name = config.pop("remedies"), config["run"].get("remedy")
    changed: Any = OmegaConf.create(config)
    if name is None:
        return changed
    check_choice("run.remedy", str(name), remedies)
    overrides = remedies[name]
    if not isinstance(overrides, list) or not all("=" in str(word) for word in overrides):
        raise InputError(f"remedies.{name} must be a list of KEY=VALUE; got {overrides}")
    try:
        changed.merge_with_dotlist([str(word) for word in overrides])
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"remedies.{name}: {str(error).splitlines()[0]}") from None
    return changed


def apply_debugging(cfg: DictConfig) -> DictConfig:
    """The configuration with what `trainer.fast_dev_run` and `overfit_batches` stand for.

    Raises:
        InputError: a value that the key does not take.
    """
    keys = {key: OmegaConf.select(cfg, f"trainer.{key}") for key in DEBUGGING}
    if not any(keys.values()):
        return cfg
    changed: Any = copy.deepcopy(cfg)
    for key, check in DEBUGGING.items():
        check(f"trainer.{key}", keys[key])
    if keys["overfit_batches"]:
        changed.trainer.limit_train_batches = keys["overfit_batches"]
    if count := int(keys["fast_dev_run"] or 0):
        limits = {f"limit_{split}_batches": count for split in ("train", "val", "test")}
        changed.trainer.update(
            {**limits, "max_epochs": 1, "accumulate_grad_batches": 1, "log_every_n_steps": 1}
        )
        changed.trainer.fast_dev_run = False  # the other keys say it all
        changed.diagnostics.every_n_steps, changed.logger.mode = 1, "off"
    return changed


def check_together(cfg: Any) -> None:
    """Refuse combinations of values that are valid for each key alone.

    Raises:
        InputError: with the key to change.
    """
    check_activation(cfg.head.activation, map(str, cfg.head.activation_args))
    rules.check_arguments(cfg.head.activation, cfg.head.activation_args)
    data = cfg.data
    if not data.val_frac + data.test_frac < 1:
        raise InputError(
            "data.val_frac and data.test_frac must add to less than 1; "
            f"got {data.val_frac} and {data.test_frac}"
        )
    backbone = cfg.backbone
    check_weights(backbone.weights, backbone.file, _architecture(backbone.name))
    check_source(backbone.name, backbone.weights, backbone.contract)
    if data.batch_size == 1 and cfg.head.norm == "batch":
        raise InputError(
            "data.batch_size=1: batch norm needs at least 2 images; increase it, or set "
            "head.norm=layer"
        )
    if cfg.diagnostics.revive_every_n_epochs is not None and not cfg.diagnostics.enabled:
        raise InputError(
            "diagnostics.revive_every_n_epochs needs the census, which "
            "diagnostics.enabled=false turns off; change one of them"
        )
    if cfg.diagnostics.revive_by != "gate" and cfg.diagnostics.revive_every_n_epochs is None:
        raise InputError(
            f"diagnostics.revive_by={cfg.diagnostics.revive_by} revives no unit while "
            "diagnostics.revive_every_n_epochs is null; set a number of epochs there"
        )
    check_features(cfg)


def _architecture(name: str) -> str:
    return name if {"/", ":"} & {*name} else name.partition(".")[0]


def check_features(cfg: Any) -> None:
    """Refuse cached features if an image's features change during training."""
    data, trainer = cfg.data, cfg.trainer
    if data.features == "live":
        if data.feature_views is not None:
            raise InputError("data.feature_views needs data.features=cached; leave it at null")
        return
    if not cfg.backbone.frozen:
        raise InputError(
            "data.features=cached needs backbone.frozen=true: features change with the backbone"
        )
    if data.augment and data.feature_views is None:
        raise InputError(
            "data.features=cached computes features once, and data.augment changes the images; "
            "set data.augment=[], or data.feature_views=N for N fixed augmentations of each image"
        )
    if not re.fullmatch(r"1|\[\d+\]", str(trainer.devices)) or trainer.num_nodes != 1:
        one = changes({"trainer.devices": 1, "trainer.num_nodes": 1}, trainer)
        raise InputError(f"data.features=cached trains in one process; set {one}")
    if cfg.diagnostics.enabled and not all(p.startswith("head.") for p in cfg.diagnostics.layers):
        raise InputError(
            "data.features=cached leaves only the head to watch; set "
            "diagnostics.layers=[head.activation]"
        )


def check_estimate(cfg: Any, several: bool) -> None:
    """Refuse `run.estimate=true` for what cannot be measured in one process.

    Raises:
        InputError: several runs or processes, or cached features.
    """
    if several or launch_check.starts_processes(cfg.trainer, os.environ):
        one = changes({"trainer.devices": 1, "trainer.num_nodes": 1}, cfg.trainer)
        advice = " and ".join(["leave out -m"] * several + [f"set {one}"] * bool(one))
        raise InputError(f"run.estimate=true measures one run in one process; {advice}")
    if cfg.data.features == "cached":
        raise InputError(
            "run.estimate=true measures training on images; set data.features=live. With "
            "cached features the backbone runs once per image, and an epoch takes seconds"
        )


def unknown_key(key: str, cfg: Any) -> InputError:
    """As `schema.unknown_key`; if another data source has the key, the error says which."""
    section, _, name = key.rpartition(".")
    owners = [
        source for source in sources.names() if name in sources.keys_of(source).__dataclass_fields__
    ]
    if section == "data" and owners:
        only = " or ".join(f"data={owner}" for owner in owners)
        return InputError(f"{key} exists only with {only}; remove it, or choose this source")
    return schema.unknown_key(key, cfg)
