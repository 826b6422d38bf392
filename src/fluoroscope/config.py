"""The types of every configuration key, checked before anything heavy is imported.

The YAML files under `conf/` hold the defaults and say what keys mean; here stands only what YAML
cannot say: a key's type and its choices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from fluoroscope.errors import InputError, check_choice, nearest


def _one_of(*choices: str) -> Any:
    return field(default=MISSING, metadata={"choices": choices})


@dataclass
class Data:
    """Keys that every source has."""

    source: str = MISSING
    root: str | None = MISSING
    labels: list[str] | None = MISSING
    views: list[str] | None = MISSING
    splits: str = _one_of("given", "own")
    val_frac: float = MISSING
    test_frac: float = MISSING
    on_unreadable: str = _one_of("stop", "skip")
    image_px: int = MISSING
    batch_size: int = MISSING
    num_workers: int | None = MISSING
    sampler: str = _one_of("shuffle", "balanced")
    augment: list[dict[str, Any]] = MISSING


@dataclass
class Phantom(Data):
    patients: int = MISSING
    images_per_patient: int = MISSING
    film_px: int = MISSING
    subtlety: float = MISSING
    prevalence: float = MISSING


@dataclass
class Folder(Data):
    patient_pattern: str | None = MISSING


@dataclass
class Table(Data):
    csv: str = MISSING
    path_column: str = MISSING
    patient_column: str | None = MISSING
    split_column: str | None = MISSING
    view_column: str | None = MISSING


@dataclass
class Nih14(Data):
    pass


SOURCES: dict[str, type[Data]] = {
    "phantom": Phantom,
    "folder": Folder,
    "table": Table,
    "nih14": Nih14,
}


@dataclass
class Backbone:
    name: str = MISSING
    weights: str = _one_of("hub", "file", "package", "none")
    file: str | None = MISSING
    frozen: bool = MISSING
    channels_last: bool = MISSING
    compile: bool = MISSING
    args: dict[str, Any] = MISSING


@dataclass
class Head:
    width: int = MISSING
    activation: str = MISSING
    activation_args: dict[str, Any] = MISSING
    norm: str = _one_of("batch", "layer", "none")
    norm_momentum: float = MISSING
    order: str = _one_of("activation-norm", "norm-activation")
    init: str = _one_of("keras", "torch", "he")
    bias_init: float | None = MISSING
    dropout: float = MISSING
    prior_bias: bool = MISSING


@dataclass
class Loss:
    name: str = _one_of("bce", "focal")
    pos_weight: Any = MISSING
    label_smoothing: float = MISSING
    focal_gamma: float = MISSING


@dataclass
class Optimizer:
    lr: float = MISSING
    backbone_lr: float = MISSING
    weight_decay: float = MISSING
    layer_decay: float | None = MISSING
    warmup_frac: float = MISSING
    ema_decay: float | None = MISSING


@dataclass
class Diagnostics:
    enabled: bool = MISSING
    every_n_steps: int = MISSING
    tolerance: float = MISSING


@dataclass
class Trainer:
    accelerator: str = _one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu")
    devices: Any = MISSING
    num_nodes: int = MISSING
    strategy: str = MISSING
    precision: str = _one_of("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
    max_epochs: int = MISSING
    gradient_clip_val: float | None = MISSING
    accumulate_grad_batches: int = MISSING
    log_every_n_steps: int = MISSING
    deterministic: bool = MISSING
    benchmark: bool | None = MISSING
    limit_train_batches: Any = MISSING
    limit_val_batches: Any = MISSING
    limit_test_batches: Any = MISSING


@dataclass
class Logger:
    mode: str = _one_of("auto", "online", "offline", "off")
    project: str = MISSING
    entity: str | None = MISSING
    group: str | None = MISSING
    tags: list[str] = MISSING
    share: list[str] = MISSING


@dataclass
class Run:
    experiment: str = MISSING
    name: str = MISSING
    dir: str = MISSING
    resume: str | None = MISSING
    progress: str = _one_of("auto", "bar", "quiet")
    patience: int | None = MISSING
    name_images: bool = MISSING


@dataclass
class Train:
    """`conf/train.yaml` with its groups."""

    seed: int = MISSING
    data: Data = field(default_factory=Data)
    backbone: Backbone = field(default_factory=Backbone)
    head: Head = field(default_factory=Head)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    run: Run = field(default_factory=Run)


def check_train(cfg: DictConfig) -> Train:
    """A composed `conf/train.yaml` as typed values; see `check`.

    With `run.resume` it is the resumed run's own configuration, changed by the command line.
    """
    if OmegaConf.select(cfg, "run.resume"):
        cfg = _resumed(cfg)
    source = str(OmegaConf.select(cfg, "data.source"))
    check_choice("data.source", source, SOURCES)
    return check(cfg, Train(data=SOURCES[source]()))


def _resumed(cfg: DictConfig) -> DictConfig:
    from hydra.core.hydra_config import HydraConfig

    file = Path(cfg.run.resume) / "config.yaml"
    if not file.is_file():
        raise InputError(f"run.resume: {file.parent} holds no run (no config.yaml)")
    before = OmegaConf.load(file)
    assert isinstance(before, DictConfig)
    for override in HydraConfig.get().overrides.task:
        key = override.split("=")[0].lstrip("+~")
        if OmegaConf.is_dict(OmegaConf.select(cfg, key)) or OmegaConf.select(cfg, key) is None:
            raise InputError(
                f"run.resume keeps the run's own groups; {override} cannot change them, "
                "single keys such as trainer.max_epochs=40 can"
            )
        OmegaConf.update(before, key, OmegaConf.select(cfg, key), force_add=True)
    return before


def check(cfg: DictConfig, schema: Any) -> Any:
    """The configuration with every type enforced and every interpolation resolved.

    Raises:
        InputError: a key that does not exist, a value of another type or not among the choices,
            a required key without value; names the key, the value and the nearest valid one.
    """
    structured = OmegaConf.structured(schema)
    try:
        typed = OmegaConf.merge(structured, OmegaConf.to_container(cfg, resolve=True))
    except ConfigKeyError as error:
        raise unknown_key(str(error.full_key), structured) from None
    except OmegaConfBaseException as error:
        key = str(error.full_key)
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{key}={OmegaConf.select(cfg, key)}: {reason}") from None
    for key in sorted(OmegaConf.missing_keys(typed)):
        raise InputError(f"{key} is required: {key}={key.split('.')[-1].upper()}")
    for key, choices in _choices(schema):
        check_choice(key, str(OmegaConf.select(typed, key)), choices)
    return typed


def _choices(schema: Any, prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in fields(schema):
        value = getattr(schema, entry.name)
        if is_dataclass(value):
            yield from _choices(value, f"{prefix}{entry.name}.")
        elif "choices" in entry.metadata:
            yield f"{prefix}{entry.name}", entry.metadata["choices"]


def keys(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys of a configuration, groups left out."""
    nodes: Any = cfg if isinstance(cfg, dict) else OmegaConf.to_container(cfg)
    for name, node in nodes.items():
        if isinstance(node, dict) and node:
            yield from keys(node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def unknown_key(key: str, cfg: Any) -> InputError:
    """The error for a key that is not there, with the nearest that is."""
    return InputError(f"there is no key {key}{nearest(key, keys(cfg))}; --help shows them all")
