"""Build all objects from the configuration, whose keys no other module reads; check them first."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from timm.layers import convert_sync_batchnorm

from fluoroscope.choices import ADAMW
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.feature_data import FeatureDataModule
from fluoroscope.data.study_table import Studies
from fluoroscope.data.transforms import Augmentation
from fluoroscope.diagnostics.alerts import Alerts
from fluoroscope.diagnostics.gatemap import GateMap
from fluoroscope.diagnostics.layers import LayerMonitor, find_activations
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.diagnostics.nonfinite import NonFinite
from fluoroscope.diagnostics.postmortem import PostMortem
from fluoroscope.diagnostics.revive import Revive
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.launch.launch_check import one_device
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.model.backbone import Backbone, check_name, make_backbone, trained_only_at
from fluoroscope.model.centering import CenteredBias
from fluoroscope.model.classifier import Classifier
from fluoroscope.model.head import Head
from fluoroscope.model.loss import MaskedLoss, make_pos_weight, prior_logit
from fluoroscope.model.network_trial import try_network
from fluoroscope.model.optimizer import Descent, parameter_groups
from fluoroscope.model.own_scores import own_scores
from fluoroscope.model.timm_optimizer import check_optimizer
from fluoroscope.run import starting_weights
from fluoroscope.run.added import check_added, make_logger
from fluoroscope.run.averaging import warmed_up
from fluoroscope.run.checkpoints import Saving
from fluoroscope.run.csv_logger import MetricsCsv
from fluoroscope.run.features import cached_features, feature_folder
from fluoroscope.run.input_check import FirstBatch
from fluoroscope.run.known_labels import KnownLabels
from fluoroscope.run.patience import Patience
from fluoroscope.run.preemption import Preemption
from fluoroscope.run.profile import make_profiler
from fluoroscope.run.progress import ProgressReport
from fluoroscope.run.run_folder import SafeCheckpointIO
from fluoroscope.run.wandb_logger import make_wandb_logger
from fluoroscope.sources.reading.read_studies import read_studies


def check_model(cfg: Train, pretrained: bool = True) -> None:
    """Refuse keys that only a library can check, before a large collection is read for minutes.

    Raises:
        InputError: a model, a transform or a trainer that cannot be built.
    """
    if pretrained and cfg.backbone.weights in ("hub", "file"):
        starting_weights.settle(cfg)
    check_name(cfg.backbone.name)
    head = _head(cfg, in_features=1, num_labels=1, norm_momentum=1.0)
    parts: dict[str, torch.nn.Module] = {"head": head}
    if needs_network(cfg):
        parts["backbone"] = try_network(**plain(cfg)["backbone"], image_px=cfg.data.image_px)
        layer_decay, rates = cfg.optimizer.layer_decay, (0.0, 0.0)
        parameter_groups(parts["backbone"], head, *rates, weight_decay=0, layer_decay=layer_decay)
    find_activations(torch.nn.ModuleDict(parts), cfg.diagnostics.layers)
    Augmentation(plain(cfg)["data"]["augment"], cfg.data.image_px)
    build_trainer(cfg, Path())
    if cfg.optimizer.name != ADAMW or cfg.optimizer.args:
        check_optimizer(cfg.optimizer.name, plain(cfg)["optimizer"]["args"])
    if cfg.callbacks or cfg.loggers or cfg.scores:
        check_added(cfg)


def needs_network(cfg: Train) -> bool:
    """Whether a key depends on the network in a way that only building it shows."""
    backbone, decay = cfg.backbone, cfg.optimizer.layer_decay
    watched = any(not pattern.startswith("head.") for pattern in cfg.diagnostics.layers)
    sized = trained_only_at(backbone.name) not in (None, cfg.data.image_px)
    own = (backbone.args, backbone.contract, backbone.grad_checkpointing)
    return any((*own, decay, watched, sized))


def build_studies(cfg: Train, split: bool | str = True, trained: Path | None = None) -> Studies:
    read = read_studies(plain(cfg)["data"], split)
    return read if cfg.backbone.weights == "none" else starting_weights.checked(cfg, read, trained)


def build_data(cfg: Train, studies: Studies) -> XrayDataModule:
    """Loaders over the studies."""
    data = cfg.data
    return XrayDataModule(
        studies.table,
        studies.labels,
        image_px=data.image_px,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        augmentation=Augmentation(plain(cfg)["data"]["augment"], data.image_px),
        sampler=data.sampler,
        seed=cfg.seed if data.order_seed is None else data.order_seed,
        same_draws=cfg.trainer.overfit_batches is not None,
    )


def build_features(
    cfg: Train, data: XrayDataModule, backbone: Backbone, device: torch.device
) -> torch.Tensor:
    """Features `[1 + V, N, F]` of all images and of `data.feature_views` augmented views."""
    views, augment = cfg.data.feature_views or 0, plain(cfg)["data"]["augment"]
    features, source = cached_features(backbone, data, views, augment, device, feature_folder())
    print(source)
    return features


def serve(
    cfg: Train, data: XrayDataModule, backbone: Backbone, device: torch.device
) -> XrayDataModule:
    """The batches of a fit: `data`, or the features of its images with `data.features=cached`."""
    if cfg.data.features == "live":
        return data
    return FeatureDataModule(data, build_features(cfg, data, backbone, device))


def build_classifier(cfg: Train, data: XrayDataModule, pretrained: bool = True) -> Classifier:
    """The model, with initial weights that depend on the seed and not on the activation.

    Args:
        pretrained: load the backbone's pretrained weights; not needed if a checkpoint has weights.

    Raises:
        InputError: if the backbone, head or loss cannot be built, or a watched layer is missing.
    """
    backbone = build_backbone(cfg, pretrained)
    head = build_head(cfg, backbone.num_features, data)
    loss = build_loss(cfg, data)
    model = Classifier(backbone, head, loss, data.labels, build_descent(cfg), cfg.seed)
    model.own_scores = own_scores(cfg.scores) if cfg.scores else {}
    if pretrained and cfg.backbone.weights == "file":
        starting_weights.fill_head(cfg, model)
    find_activations(model, cfg.diagnostics.layers)  # to refuse before anything is written
    return model


def build_descent(cfg: Train) -> Descent:
    keys = plain(cfg)["optimizer"] | {"schedule": plain(cfg)["schedule"]}
    del keys["ema_decay"]
    return Descent(**keys)


def build_head(cfg: Train, num_features: int, data: XrayDataModule) -> Head:
    """The head of `build_classifier`; its weights do not depend on the backbone's random draws."""
    torch.manual_seed(cfg.seed)
    head = _head(cfg, num_features, len(data.labels))
    if cfg.head.prior_bias:
        head.set_prior(prior_logit(torch.from_numpy(data.target("train"))))
    return head


def _head(cfg: Train, in_features: int, num_labels: int, **changed: Any) -> Head:
    keys = plain(cfg)["head"] | changed
    del keys["prior_bias"]
    head = Head(in_features, num_labels, **keys)
    return convert_sync_batchnorm(head) if cfg.trainer.sync_batchnorm else head


def build_backbone(cfg: Train, pretrained: bool = True) -> Backbone:
    torch.manual_seed(cfg.seed)  # for layers without pretrained weights
    keys, start = plain(cfg)["backbone"], None
    if pretrained and keys["weights"] == "file":
        start = starting_weights.own_checkpoint(cfg)
    if not pretrained or start is not None:
        keys |= {"weights": "none", "file": None}
    synced, image_px = cfg.trainer.sync_batchnorm, cfg.data.image_px
    backbone = make_backbone(**keys, image_px=image_px, sync_batchnorm=synced)
    if start is not None:
        starting_weights.fill_backbone(backbone, start)
    if keys["weights"] != "none" and image_px not in backbone.trained_px and is_first_process():
        sizes = " and ".join(f"{px} px" for px in backbone.trained_px)
        print(f"{cfg.backbone.name} is made for images of {sizes}; data.image_px={image_px} stays")
    return backbone


def build_loss(cfg: Train, data: XrayDataModule) -> MaskedLoss:
    return MaskedLoss(
        cfg.loss.name,
        pos_weight=make_pos_weight(cfg.loss.pos_weight, torch.from_numpy(data.target("train"))),
        label_smoothing=cfg.loss.label_smoothing,
        focal_gamma=cfg.loss.focal_gamma,
    )


def build_monitor(cfg: Train) -> Monitor | None:
    if not cfg.diagnostics.enabled:
        return None
    return Monitor(cfg.diagnostics.every_n_steps, cfg.diagnostics.tolerance)


def build_watchers(cfg: Train, folder: Path) -> list[Callback]:
    """All diagnostics of a fit; [] if disabled."""
    monitor, keys = build_monitor(cfg), cfg.diagnostics
    if monitor is None:
        return []
    every, alerts = keys.every_n_steps, plain(keys)["alerts"]
    stop = [NonFinite(folder, every)] if alerts.pop("nonfinite") else []
    watchers: list[Callback] = [monitor, LayerMonitor(keys.layers, every, keys.tolerance)]
    post_mortem = PostMortem(folder)
    watchers += [GateMap(folder), post_mortem, Alerts(**alerts), *stop]
    if keys.revive_every_n_epochs is not None:
        watchers.append(Revive(keys.revive_every_n_epochs, post_mortem, keys.revive_by))
    return watchers


def build_loggers(cfg: Train, folder: Path, mode: str, run_id: str) -> list[Logger]:
    """`metrics.csv`, those of `cfg.loggers` and, unless mode is `off`, a W&B run."""
    others = [make_logger(cfg, name, folder) for name, entry in cfg.loggers.items() if entry]
    loggers: list[Logger] = [MetricsCsv(folder), *others]
    if mode != "off":
        loggers.append(make_wandb_logger(folder, plain(cfg), mode, run_id))
    return loggers


def build_saving(
    cfg: Train, folder: Path, entries: Callable[[], dict[str, Any]], preemption: Preemption
) -> Saving:
    return Saving(folder, entries, cfg.run.save_every_n_steps, preemption)


def build_trainer(
    cfg: Train, folder: Path, watchers: Sequence[Callback] = (), saving: Saving | None = None
) -> pl.Trainer:
    """Lightning's Trainer, without loggers yet.

    Args:
        watchers: callbacks from `build_watchers`.
        saving: callback from `build_saving`; without it the trainer only evaluates.

    Raises:
        InputError: if Lightning refuses the keys, for example a missing device.
    """
    keys = plain(cfg)["trainer"]
    synced = keys.pop("sync_batchnorm")
    del keys["fast_dev_run"], keys["overfit_batches"]  # other keys, and the data, stand for them
    if (profiler := keys["profiler"]) is not None:
        keys["profiler"] = None if saving is None else make_profiler(profiler, folder)
    if keys["accelerator"] == "auto" and torch.backends.mps.is_available():
        keys["accelerator"] = "cpu"  # MPS has no float64, which the census needs
    try:
        trainer = pl.Trainer(
            **keys,
            logger=False,
            callbacks=[] if saving is None else _fitting(cfg, watchers, saving),
            plugins=[SafeCheckpointIO()],
            default_root_dir=folder,
            enable_checkpointing=False,  # `Saving` writes the checkpoints
            enable_progress_bar=False,
            enable_model_summary=False,
            # The samplers of `data.datamodule` divide the images themselves.
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        reason = first_sentence(error)
        raise InputError(f"trainer: {reason}{one_device(cfg.trainer)}") from None
    # Lightning's TERM handler waits for processes without a signal; USR1's saves within a batch.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    parallel = isinstance(trainer.strategy, pl.strategies.ParallelStrategy)  # also of one process
    if synced and parallel and trainer.strategy.root_device.type == "cpu":
        raise InputError("trainer.sync_batchnorm works only on GPUs; leave it false on a CPU")
    return trainer


def _fitting(cfg: Train, watchers: Sequence[Callback], saving: Saving) -> list[Callback]:
    bar = cfg.run.progress == "bar" or (cfg.run.progress == "auto" and sys.stdout.isatty())
    callbacks: list[Callback] = [
        saving,
        *(FirstBatch(), KnownLabels()),
        # Before the watchers, which must not count the images that it uses.
        *([CenteredBias()] if cfg.head.bias_init == "centered" else []),
        *watchers,
        ProgressReport(bar, cfg),
    ]
    if cfg.run.patience is not None:
        callbacks.append(Patience(cfg.run.patience))
    if (decay := cfg.optimizer.ema_decay) is not None:
        callbacks.append(WeightAveraging(use_buffers=True, multi_avg_fn=warmed_up(decay)))
    return callbacks
