"""A run of a study: what it is trained with, where it lies, and what it is refused for."""

import io
import shutil
import time
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from yaml import YAMLError

from fluoroscope import build
from fluoroscope.ablation.features import CachedFeatures, FeatureDataModule, extract
from fluoroscope.ablation.settings import differences, on_cached_features
from fluoroscope.config.train import Train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.errors import InputError
from fluoroscope.model.classifier import Classifier
from fluoroscope.run import run_folder, summary
from fluoroscope.run.csv_logger import MetricsCsv
from fluoroscope.run.preemption import Preemption
from fluoroscope.run.resume import load_checkpoint
from fluoroscope.train import marked, score

SHARES = {"dead": "val/dead_frac", "linear": "val/linear_frac", "blackout": "val/blackout_frac"}


class Run(NamedTuple):
    """One remedy with one seed."""

    remedy: str
    cfg: Train
    folder: Path


class Study:
    """The data of all runs, read once; behind a frozen backbone the features, computed once."""

    def __init__(self, cfg: Train) -> None:
        self.studies = build.build_studies(cfg)
        self.cached: dict[str, torch.Tensor] = {}
        summary.print_studies(self.studies)

    def check(self, run: Run) -> None:
        """Refuse batches that the study cannot fill, and a folder of anything but this run.

        Raises:
            InputError: with the first of what is different there.
        """
        build.build_data(run.cfg, self.studies).train_sampler()
        check_folder(run.cfg, run.folder, self.studies)

    def run(self, cfg: Train, folder: Path) -> dict[str, Any]:
        """Train and score anew; leave `config.yaml` and `metrics.csv`.

        Returns:
            The result; of a run that diverged it is null but for `failed`, which says why.
        """
        if folder.exists():  # what a stopped run left would stand twice in metrics.csv
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        run_folder.write_text(folder / run_folder.CONFIG, OmegaConf.to_yaml(cfg))
        started = time.perf_counter()
        watchers = build.build_watchers(cfg, folder)
        entries = self._marks | {"config": build.plain(cfg)}
        saving = build.build_saving(cfg, folder, entries, Preemption())
        trainer = build.build_trainer(cfg, folder, watchers, saving)
        trainer.loggers = [MetricsCsv(folder)]
        model, data = self.parts(cfg, trainer.strategy.root_device)
        failure = _fit(cfg, folder, trainer, model, data)
        if failure is None:
            shutil.rmtree(folder / "checkpoints")
            watched = summary.watched(watchers)
            progress = trainer.current_epoch, trainer.global_step
            result = summary.result(cfg, self.studies, model, *progress, watched)
        else:
            result = _failed(cfg, self.studies, failure)
        return result | {"fit_s": time.perf_counter() - started}

    def parts(self, cfg: Train, device: torch.device) -> tuple[Classifier, XrayDataModule]:
        """The model and its batches: of images, or of the features that `device` computes."""
        data = build.build_data(cfg, self.studies)
        if not on_cached_features(cfg):
            return build.build_classifier(cfg, data), data
        key = _backbone_key(cfg)
        # The head starts the same behind any weights, and once the features are there nothing
        # else is needed.
        model = build.build_classifier(cfg, data, pretrained=key not in self.cached)
        if key not in self.cached:
            self.cached[key] = extract(model.backbone, data, device)
        model.backbone = CachedFeatures(model.backbone.num_features)  # type: ignore[assignment]
        return model, FeatureDataModule(data, self.cached[key])

    @cached_property
    def _marks(self) -> dict[str, Any]:
        return marked(self.studies)  # which reads all images


def check_folder(cfg: Train, folder: Path, studies: build.Studies) -> None:
    """Refuse a folder of anything but this run on these studies.

    Raises:
        InputError: with the first of what is different there.
    """
    # A kill in mid-write leaves a hidden part of a file.
    if not folder.exists() or all(file.name.startswith(".") for file in folder.iterdir()):
        return
    stored = _stored_config(folder / run_folder.CONFIG)
    different = [key for key in differences(stored, build.plain(cfg)) if _matters(key)]
    if not different and (folder / run_folder.RESULT).exists():
        result = run_folder.read_json(folder / run_folder.RESULT)
        if result.get("split_fingerprint") != studies.fingerprint:
            different = ["its images, labels or splits"]
    if different:
        raise InputError(
            f"{folder} holds a run of another configuration ({different[0]}); choose "
            "another run.dir"
        )


def _stored_config(file: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, YAMLError):
        raise InputError(
            f"{file.parent} holds no run of this study (it has no {file.name} that can be read); "
            "choose another run.dir"
        ) from None


def _matters(key: str) -> bool:
    """Names, places and loggers do not change a result; when to stop does."""
    return key == "run.patience" or key.partition(".")[0] not in ("run", "logger")


def _fit(
    cfg: Train, folder: Path, trainer: pl.Trainer, model: Classifier, data: XrayDataModule
) -> str | None:
    """Train, and score the best checkpoint; the sentence of a run that diverged, else None."""
    pl.seed_everything(cfg.seed, verbose=False)
    try:
        with redirect_stdout(io.StringIO()):  # epochs and alerts of dozens of runs
            trainer.fit(model, datamodule=data)
        best = load_checkpoint(run_folder.checkpoint(folder, "best"))
        score(trainer, model, data, best)
    except InputError as error:
        if error.__cause__ is not None:  # a full disk, not the remedy
            raise
        return str(error)
    return None


def _failed(cfg: Train, studies: build.Studies, why: str) -> dict[str, Any]:
    """What stands for the result; the checkpoints that the sentence names stay."""
    return {
        "name": cfg.run.name,
        "seed": cfg.seed,
        "split_fingerprint": studies.fingerprint,
        "units": dict.fromkeys(SHARES.values()),
        "test": {"auroc": None},
        "failed": why,
    }


def _backbone_key(cfg: Train) -> str:
    key = OmegaConf.to_yaml(cfg.backbone) + str(cfg.data.image_px)
    # An untrained backbone is another one with each seed.
    return key + str(cfg.seed) if cfg.backbone.weights == "none" else key
