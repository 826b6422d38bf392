"""The type of every configuration key, checked before heavy libraries are imported.

The YAML files under `conf/` hold the defaults and explain the keys. The classes below add a key's
type, its choices and its range; `choices` holds those that other Python code checks too.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import choices, sources
from fluoroscope.config import rules
from fluoroscope.config.added import entries, with_added
from fluoroscope.config.data_keys import Data
from fluoroscope.config.library_names import check_network, check_optimizer_name
from fluoroscope.config.logger_keys import Logger
from fluoroscope.config.place_checks import check_new_folder, check_places
from fluoroscope.config.run_checks import (
    apply_debugging,
    apply_remedy,
    check_auto,
    check_estimate,
    check_together,
    is_multirun,
    resumed,
)
from fluoroscope.config.schema import check, number, one_of, ruled
from fluoroscope.config.weights_keys import check_weights_contract
from fluoroscope.launch import launch_check
from fluoroscope.launch.hub_check import check_hub
from fluoroscope.launch.run_status import AUTO
from fluoroscope.model.score_names import check_scores


@dataclass
class Backbone:
    name: str = ruled(check_network)
    weights: str = one_of(*choices.WEIGHTS)
    file: str | None = MISSING
    frozen: bool = MISSING
    channels_last: bool = MISSING
    compile: bool = MISSING
    grad_checkpointing: bool = MISSING
    args: dict[str, Any] = ruled(rules.check_backbone_args)  # noqa: RUF009
    contract: dict[str, Any] = ruled(check_weights_contract)  # noqa: RUF009


@dataclass
class Head:
    width: int = number(*choices.COUNT)
    activation: str = MISSING
    activation_args: dict[str, Any] = MISSING
    norm: str = one_of(*choices.NORMS)
    norm_momentum: Any = ruled(choices.check_norm_momentum)  # noqa: RUF009
    order: str = one_of(*choices.ORDERS)
    init: str = one_of(*choices.INITS)
    bias_init: Any = ruled(choices.check_bias_init)  # noqa: RUF009
    dropout: float = number(*choices.DROPOUT)
    prior_bias: bool = MISSING


@dataclass
class Loss:
    name: str = one_of(*choices.LOSSES)
    pos_weight: Any = ruled(choices.check_pos_weight)  # noqa: RUF009
    label_smoothing: float = number(*choices.LABEL_SMOOTHING)
    focal_gamma: float = ruled(choices.check_focal_gamma)


@dataclass
class Optimizer:
    name: str = ruled(check_optimizer_name)
    args: dict[str, Any] = MISSING
    lr: float = number(0)
    backbone_lr: float = number(0)
    weight_decay: float = number(0)
    layer_decay: float | None = number(*choices.PROPER_SHARE)
    warmup_frac: float = number(0, 1, "[)")
    ema_decay: float | None = number(*choices.PROPER_SHARE)


@dataclass
class Schedule:
    name: str = one_of(*choices.SCHEDULES)
    milestones: list[float] = ruled(rules.check_milestones)  # noqa: RUF009
    gamma: float = number(0, 1, "(]")
    div_factor: float = number(1)
    final_div_factor: float = number(1)


@dataclass
class Alerts:
    blackout_frac: float | None = number(0, 1)
    dead_jump_frac: float | None = number(0, 1)
    vanishing_ratio: float | None = number(0)
    nonfinite: bool = MISSING


@dataclass
class Diagnostics:
    enabled: bool = MISSING
    every_n_steps: int = number(1)
    tolerance: float = number(0)
    layers: list[str] = MISSING
    revive_every_n_epochs: int | None = number(1)
    revive_by: str = one_of("gate", "gradient")
    alerts: Alerts = field(default_factory=Alerts)


@dataclass
class Trainer:
    accelerator: str = one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu")
    devices: Any = ruled(rules.check_devices)  # noqa: RUF009
    num_nodes: int = number(1)
    # Scores are read after the fit; forked and spawned processes would not return them.
    strategy: str = one_of("auto", "ddp")
    precision: str = one_of("auto", "32-true", "16-mixed", "bf16-mixed", "64-true")
    max_epochs: int = number(1)
    gradient_clip_val: float | None = number(0, ends="()")
    accumulate_grad_batches: int = number(1)
    log_every_n_steps: int = number(1)
    deterministic: bool = MISSING
    benchmark: bool | None = MISSING
    sync_batchnorm: bool = MISSING
    limit_train_batches: Any = ruled(rules.check_limit)  # noqa: RUF009
    limit_val_batches: Any = ruled(rules.check_limit)  # noqa: RUF009
    limit_test_batches: Any = ruled(rules.check_limit)  # noqa: RUF009
    fast_dev_run: Any = ruled(rules.check_fast_dev_run, False)  # noqa: RUF009
    overfit_batches: Any = ruled(rules.check_limit, None)  # noqa: RUF009
    detect_anomaly: bool = False
    profiler: str | None = ruled(rules.check_profiler, None)


@dataclass
class Run:
    experiment: str = MISSING
    name: str = MISSING
    dir: str = MISSING
    resume: str | None = MISSING
    save_every_n_steps: int | None = number(1)
    progress: str = one_of("auto", "bar", "quiet")
    patience: int | None = number(0)
    name_images: bool = MISSING
    remedy: str | None = MISSING
    estimate: bool = MISSING
    print_config: bool = MISSING


@dataclass
class Train:
    """`conf/train.yaml` with its groups."""

    seed: int = number(*choices.SEED)
    data: Data = field(default_factory=Data)
    backbone: Backbone = field(default_factory=Backbone)
    head: Head = field(default_factory=Head)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    callbacks: Any = entries()  # noqa: RUF009
    loggers: Any = entries()  # noqa: RUF009
    scores: list[str] = field(default_factory=list, metadata={"rule": check_scores})
    run: Run = field(default_factory=Run)


def check_train(cfg: DictConfig, overrides: Sequence[str] = ()) -> Train:
    """Convert a composed `conf/train.yaml` to typed values; see `schema.check`.

    With `run.resume`, use the configuration of the resumed run, changed by the overrides.

    Args:
        overrides: from the command line.
    """
    resume = OmegaConf.select(cfg, "run.resume")
    if resume and resume != AUTO:
        cfg = resumed(with_added(cfg), overrides, Train)
    cfg = with_added(apply_debugging(apply_remedy(cfg)))
    source = str(OmegaConf.select(cfg, "data.source"))
    checked: Train = check(cfg, Train(data=sources.keys_of(source)()))
    check_together(checked)
    return checked


def check_run(cfg: DictConfig, overrides: Sequence[str] = ()) -> Train:
    """`check_train`, and check places, processes and devices: nothing heavy is imported."""
    checked = check_train(cfg, overrides)
    several, resume = is_multirun(), checked.run.resume
    if checked.run.estimate:
        check_estimate(checked, several)
    if resume == AUTO:
        check_auto(overrides)
    if not any(word.startswith("hydra/launcher=") for word in sys.argv):  # its jobs check it
        launch_check.check_launch(checked.trainer, os.environ, several)
        if resume is None and not several:
            check_new_folder(checked.run.dir)
        check_places(checked)
        launch_check.check_gpu(checked.trainer)
        if checked.backbone.weights == "hub" and resume is None:
            check_hub(checked.backbone.name)
    return checked
