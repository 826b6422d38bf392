"""The keys of `conf/ablate.yaml`, checked before anything heavy is imported."""

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fluoroscope.choices import FEATURES, SEED
from fluoroscope.commands import called
from fluoroscope.config.place_checks import check_places
from fluoroscope.config.run_checks import is_multirun
from fluoroscope.config.schema import check, number, one_of
from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError, changes
from fluoroscope.launch import launch_check
from fluoroscope.launch.hub_check import check_hub

LINEAR = "identity"
# Keys in which the heads of an ablation can differ.
GRID = re.compile(r"head\.(?!activation).+|optimizer\.(lr|weight_decay|warmup_frac)")


@dataclass
class Own:
    """The keys that `conf/ablate.yaml` adds to those of `conf/train.yaml`."""

    activations: Any = MISSING
    seeds: int = number(1)
    grid: Any = MISSING
    features: str = one_of(*FEATURES)
    views: int = number(0)
    memory_gib: float = number(0, ends="()")
    report: bool = MISSING


class Ablation(NamedTuple):
    """The checked configurations of all heads, and their common settings."""

    heads: dict[str, Train]  # by the name of the head's folder
    features: str
    views: int
    memory_gib: float
    report: bool
    notes: list[str]


def check_ablate(cfg: DictConfig, overrides: Sequence[str] = ()) -> Ablation:
    """Convert a composed `conf/ablate.yaml` to typed configurations; see `schema.check`.

    Raises:
        InputError: also for settings that heads cannot share, such as a trained backbone, several
            processes or averaged weights.
    """
    notes: list[str] = []
    own = [entry.name for entry in fields(Own)]
    cfg.merge_with(check(OmegaConf.masked_copy(cfg, own), Own()))
    _check_own(cfg, overrides)
    common = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in own])
    if cfg.features == "live" and cfg.data.order_seed is None:
        common.data.order_seed = cfg.seed
        notes.append(
            f"all heads share one backbone and see the same batches (data.order_seed={cfg.seed})"
        )
    if cfg.features == "cached" and not cfg.views:
        common.data.augment = []
    _check_shared(check_train(common))
    SEED.check("seed + seeds - 1", cfg.seed + cfg.seeds - 1)
    common.data.features, common.data.feature_views = cfg.features, cfg.views or None
    activations = _activations(cfg.activations, notes)
    points = list(_points(OmegaConf.to_container(cfg.grid)))
    heads = {}
    for (name, args), point in itertools.product(activations, points):
        one = _changed(common, name, args, point)
        for seed in range(one.seed, one.seed + cfg.seeds):
            folder = _folder_name(name, args, point, seed)
            if folder in heads:
                raise InputError(
                    f"two heads would be written to the same folder {folder}; compare them in two "
                    "ablations with different run.dir"
                )
            heads[folder] = copy.deepcopy(one)
            heads[folder].seed, heads[folder].run.name = seed, folder
    return Ablation(heads, cfg.features, cfg.views, float(cfg.memory_gib), cfg.report, notes)


def check_study(cfg: DictConfig, overrides: Sequence[str] = ()) -> Ablation:
    """`check_ablate`, and check places and devices: nothing heavy is imported."""
    if is_multirun():
        raise InputError(
            "-m is not available for an ablation; list all heads in activations, seeds and grid, "
            "and start one ablation for each data.fold"
        )
    ablation = check_ablate(cfg, overrides)
    shared = next(iter(ablation.heads.values()))
    check_places(shared)
    launch_check.check_gpu(shared.trainer)
    if shared.backbone.weights == "hub":
        check_hub(shared.backbone.name)
    return ablation


def _check_own(cfg: DictConfig, overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.lstrip("+~").startswith("head.activation"):
            raise InputError(
                f"{override.lstrip('+~')}: an ablation takes a list of activations and their "
                "arguments: 'activations=[relu,{leaky_relu: {negative_slope: 0.1}}]'"
            )
        if override.lstrip("+~").startswith("data.feature"):
            raise InputError(f"{override}: use features=cached|live and views=N instead")
    if cfg.views and cfg.features == "live":
        raise InputError("views needs features=cached; features=live augments images in each epoch")
    if cfg.trainer.fast_dev_run or cfg.trainer.overfit_batches:
        raise InputError(
            "trainer.fast_dev_run and trainer.overfit_batches are for single runs; for a "
            "short ablation lower trainer.max_epochs and seeds"
        )
    if cfg.run.resume is not None:
        raise InputError("run.resume: to continue an ablation, give its folder as run.dir instead")


def _check_shared(cfg: Train) -> None:
    """Refuse settings by which one head would change another, or that a `HeadBank` lacks."""
    trainer, diagnostics = cfg.trainer, cfg.diagnostics
    if not cfg.backbone.frozen:
        raise InputError(
            "backbone.frozen=false trains the backbone, but all heads share it; compare fine-tuned "
            f"runs with {called('train')} -m head.activation=relu,gelu"
        )
    one_device = re.fullmatch(r"1|\[\d+\]", str(trainer.devices))
    if not one_device or trainer.strategy != "auto" or trainer.num_nodes != 1:
        one = {"trainer.devices": 1, "trainer.strategy": "auto", "trainer.num_nodes": 1}
        raise InputError(f"an ablation trains in one process; set {changes(one, trainer)}")
    if trainer.precision == "16-mixed":
        raise InputError(
            "trainer.precision=16-mixed scales the loss of all heads by one factor; use 32-true or "
            "bf16-mixed"
        )
    refused = {
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
        "trainer.limit_train_batches": trainer.limit_train_batches is not None,
        "trainer.limit_val_batches": trainer.limit_val_batches is not None,
        "trainer.limit_test_batches": trainer.limit_test_batches is not None,
        "callbacks": bool(cfg.callbacks),
        "logger": bool(cfg.loggers),
        "optimizer.ema_decay": cfg.optimizer.ema_decay is not None,
        "optimizer.layer_decay": cfg.optimizer.layer_decay is not None,
        "diagnostics.revive_every_n_epochs": diagnostics.revive_every_n_epochs is not None,
        "diagnostics.enabled": not diagnostics.enabled,
        "run.patience": cfg.run.patience is not None,
    }
    for key, is_set in refused.items():
        if is_set:
            raise InputError(
                f"{key} cannot be changed for heads that are trained together; keep its default, "
                f"or train the heads one by one with {called('train')} -m"
            )


def _activations(given: Any, notes: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Names with their arguments; adds the linear head if it is missing."""
    entries = OmegaConf.to_container(given) if OmegaConf.is_list(given) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f"activations must be a list, written 'activations=[relu,gelu]'; got {given}"
        )
    found = [_activation(entry) for entry in entries]
    for entry in found:
        if found.count(entry) > 1:
            raise InputError(
                f"activations lists {entry[0]} twice with the same arguments; remove one"
            )
    if all(name != LINEAR for name, _ in found):
        found.append((LINEAR, {}))
        notes.append(f"added {LINEAR}: every comparison includes the linear head")
    return found


def _activation(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, args = next(iter(entry.items()))
        if isinstance(args, Mapping):
            return str(name), {str(key): value for key, value in args.items()}
    if isinstance(entry, Mapping | list):
        raise InputError(
            f"activations: each entry must be NAME or {{NAME: {{argument: value}}}}; got {entry}"
        )
    return str(entry), {}


def _points(grid: Any) -> Iterator[dict[str, Any]]:
    """Every combination of the grid's values, by dotted key."""
    axes = dict(_axes(grid))
    for key, values in axes.items():
        if not GRID.fullmatch(key):
            raise InputError(
                f"grid.{key}: grid takes keys of head and optimizer.lr, weight_decay and "
                "warmup_frac; set activations and seeds with activations=[...] and seeds=N"
            )
        if not isinstance(values, list) or not values:
            raise InputError(f"grid.{key} must be a list, written 'grid.{key}=[...]'; got {values}")
        if twice := [value for value in values if values.count(value) > 1]:
            raise InputError(f"grid.{key} lists {twice[0]} twice; remove one")
    for combination in itertools.product(*axes.values()):
        yield dict(zip(axes, combination, strict=True))


def _axes(grid: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in (grid or {}).items():
        if isinstance(value, Mapping):
            yield from _axes(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _changed(common: DictConfig, name: str, args: dict[str, Any], point: dict[str, Any]) -> Train:
    cfg: Any = copy.deepcopy(common)
    changes = {"head.activation": name, "head.activation_args": args, **point}
    for key, value in changes.items():
        try:
            OmegaConf.update(cfg, key, value, merge=False)
        except OmegaConfBaseException as error:
            raise InputError(f"grid.{key}: {str(error).splitlines()[0]}") from None
    return check_train(cfg)


def _folder_name(name: str, args: dict[str, Any], point: dict[str, Any], seed: int) -> str:
    """`relu-norm-activation-lr0.001-s1`: the values in which the head differs from others."""
    values = [_short(key, value) for key, value in {**args, **point}.items()]
    return "-".join([name, *values, f"s{seed}"])


def _short(key: str, value: Any) -> str:
    word = value if isinstance(value, str) else f"{key.rpartition('.')[2]}{value}"
    return re.sub(r"[^\w.+-]", "_", word)
