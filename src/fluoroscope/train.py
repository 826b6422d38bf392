"""The story of a run: build, fit, test, result."""

import logging
import math
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fluoroscope import build, runs, summary, tracking
from fluoroscope.config import Train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.seen import marks
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.model.classifier import Classifier
from fluoroscope.outcome import failure_marked


def main(cfg: Train) -> float | None:
    """Entry of `scripts/train.py`: one run in Hydra's output folder.

    Returns:
        The best validation AUROC, which a search maximises; None where it is undefined.
    """
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN and cfg.run.resume is not None:
        raise InputError("-m starts new runs; continue one with run.resume, without -m")
    one_process = cfg.trainer.strategy == "auto" and str(cfg.trainer.devices) in ("1", "[0]")
    if hydra.mode == RunMode.MULTIRUN and not one_process:
        # The processes that Lightning starts repeat the command line, that is the whole sweep.
        raise InputError(
            "-m cannot start runs of several processes; start them one by one, or with "
            "trainer.devices=1"
        )
    folder = Path(hydra.runtime.output_dir)
    try:
        result = train(cfg, folder, list(hydra.overrides.task))
    except BaseException as error:
        tracking.finish(1)
        if runs.last_checkpoint(folder).exists() and not isinstance(error, InputError):
            print(f"stopped; to go on: python scripts/train.py run.resume={summary.near(folder)}")
        raise
    tracking.finish(0)
    best = result["val"]["auroc"]
    return None if math.isnan(best) else best


def train(cfg: Train, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Fit, score the best checkpoint on validation and test, leave a complete run folder.

    Args:
        folder: new, or one that `cfg.run.resume` names.
        overrides: of the command line, for the record.

    Returns:
        What `result.json` holds.
    """
    started = time.perf_counter()
    hush()
    if is_first_process():  # it may have written there when the others start
        runs.claim(folder, cfg.run.resume is not None)
    build.check_model(cfg)
    studies = build.build_studies(cfg)
    last, first_epoch = _last_checkpoint(cfg, folder, studies)
    cfg.data.labels = studies.labels  # "all the source has" is a different list tomorrow
    data = build.build_data(cfg, studies)
    data.first_epoch = first_epoch
    model = build.build_classifier(cfg, data)
    watchers = build.build_watchers(cfg, folder)
    stamp = Stamp(build.plain(cfg), studies, folder)
    trainer = build.build_trainer(cfg, folder, watchers, stamp)
    build.warn_if_short(cfg, data, trainer.world_size)
    if is_first_process():
        summary.print_studies(studies)
    trainer.loggers = _open(cfg, folder, overrides, studies.fingerprint)

    with failure_marked(folder, is_first_process()):
        pl.seed_everything(cfg.seed, verbose=False)
        try:
            trainer.fit(model, datamodule=data, ckpt_path=last, weights_only=True)
        except MisconfigurationException as error:  # what Lightning sees only with the data
            raise InputError(f"trainer: {first_sentence(error)}") from None
        fitted = time.perf_counter()

        best = load_checkpoint(runs.best_checkpoint(folder))
        score(trainer, model, data, best)
        progress = trainer.current_epoch, trainer.global_step
        result = summary.result(cfg, studies, model, *progress, summary.watched(watchers))
        result |= {"best_epoch": int(best["epoch"]) + 1}
        result |= {"fit_s": fitted - started, "total_s": time.perf_counter() - started}
        if is_first_process():
            _write(cfg, folder, studies, model, result)
            tracking.record(runs.finite(result))
            summary.print_result(result, folder)
    return result


def _last_checkpoint(cfg: Train, folder: Path, studies: build.Studies) -> tuple[Path | None, int]:
    """Where a resumed run goes on; None and 0 for a new one and for one without a checkpoint yet.

    It comes before anything is written: a refusal must leave the run as it was.
    """
    last = runs.last_checkpoint(folder)
    if cfg.run.resume is None or not last.exists():
        return None, 0
    checkpoint = load_checkpoint(last)
    check_same_studies(checkpoint, studies.fingerprint)
    if is_first_process():
        runs.rewind_metrics(folder, checkpoint["global_step"])
    return last, int(checkpoint["epoch"]) + 1


def _write(
    cfg: Train, folder: Path, studies: build.Studies, model: Classifier, result: dict[str, Any]
) -> None:
    for split, predictions in model.predictions.items():
        path = folder / "predictions" / f"{split}.csv"
        runs.write_predictions(
            path, studies.table, studies.labels, predictions, cfg.run.name_images
        )
    runs.write_json(folder / runs.RESULT, result)


class Stamp(pl.Callback):
    """Adds to each checkpoint what rebuilds the model and proves that the data are the same.

    Entries: `config`, `split_fingerprint`, and `seen`, the marks of the images that the model was
    trained or chosen on.
    """

    def __init__(self, config: dict[str, Any], studies: build.Studies, folder: Path) -> None:
        self.fingerprint, self.folder = studies.fingerprint, folder
        seen = studies.table[studies.table["split"].isin(["train", "val"])]
        self.entries = {
            "config": config,
            "split_fingerprint": studies.fingerprint,
            "seen": torch.tensor(marks(seen["path"].tolist())),
        }

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint |= self.entries

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for name, state in checkpoint["callbacks"].items():
            if name.startswith("ModelCheckpoint"):
                checkpoint["callbacks"][name] = runs.relocate(state, self.folder / "checkpoints")


def check_same_studies(checkpoint: dict[str, Any], fingerprint: str) -> None:
    """Refuse to go on with images, labels or splits that the checkpoint was not trained on."""
    if checkpoint["split_fingerprint"] != fingerprint:
        raise InputError(
            "the images, labels or splits are not those the checkpoint was trained with; "
            "restore data.root and the keys of data, or start a new run"
        )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this project: plain values and tensors, opened without running code.

    Raises:
        InputError: no such file, or one of another kind.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        checkpoint = None
    if not isinstance(checkpoint, dict) or "split_fingerprint" not in checkpoint:
        raise InputError(f"{path} is no checkpoint of scripts/train.py, or it is damaged")
    return checkpoint


def score(
    trainer: pl.Trainer, model: Classifier, data: XrayDataModule, checkpoint: dict[str, Any]
) -> None:
    """Scores and predictions of a checkpoint, into the model; those of test go to the loggers."""
    model.load_state_dict(checkpoint["state_dict"])
    model.on_load_checkpoint(checkpoint)
    # If the weights are averaged, their average is what the checkpoint holds.
    trainer.callbacks = []  # type: ignore[attr-defined]
    loggers, trainer.loggers = trainer.loggers, []  # this validation was logged when it was reached
    trainer.validate(model, datamodule=data, verbose=False)
    trainer.loggers = loggers
    trainer.test(model, datamodule=data, verbose=False)


def _open(cfg: Train, folder: Path, overrides: list[str], fingerprint: str) -> list[Any]:
    """The run's identity on disk and its loggers; a resumed run keeps its identity."""
    mode, why = tracking.choose_mode(cfg.logger.mode)
    provenance = runs.provenance(overrides, fingerprint)
    run_id = tracking.new_run_id()
    if cfg.run.resume is not None and (folder / runs.PROVENANCE).exists():
        before = runs.read_json(folder / runs.PROVENANCE)
        run_id = before["run_id"]
        provenance["resumed_from"] = before
    # A server may refuse the run: what was asked for then fails, `auto` says so and goes offline.
    if is_first_process() and cfg.logger.mode == "auto":
        print(why)
    loggers = build.build_loggers(cfg, folder, mode, run_id)
    if is_first_process():
        if cfg.logger.mode != "auto":
            print(why)
        runs.write_text(folder / runs.CONFIG, OmegaConf.to_yaml(cfg))
        runs.write_json(folder / runs.PROVENANCE, {"run_id": run_id, **provenance})
        print(f"run folder {summary.near(folder)}")
    return loggers


def is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def hush() -> None:
    """Lightning's advice on workers and loggers hides what a user should read."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    topics = "not have many workers|sync_dist=True|srun|in eval mode|exists and is not empty"
    warnings.filterwarnings("ignore", message=f".*({topics}).*")
