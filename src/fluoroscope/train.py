"""A training run: build, fit, test, result."""

import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fluoroscope import build
from fluoroscope.command import sweep
from fluoroscope.config.train import Train
from fluoroscope.console import short_path
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError, LoadingError, advise_resume, first_sentence
from fluoroscope.estimate import estimate
from fluoroscope.launch import launch_check
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.launch.run_status import AUTO, failure_marked
from fluoroscope.model.classifier import Classifier
from fluoroscope.run import closing, run_folder, summary, wandb_logger
from fluoroscope.run.added import make_callbacks
from fluoroscope.run.checkpoints import own_entries
from fluoroscope.run.device import explain_out_of_memory, settle_device
from fluoroscope.run.opening import Opening, continues
from fluoroscope.run.preemption import Preempted, Preemption
from fluoroscope.run.resume import Start, finished_result, load_checkpoint, start_of
from fluoroscope.run.stop_report import has_checkpoint, report_stop, resume_advice
from fluoroscope.run.training_check import check_training, settle_momentum


def main(cfg: Train) -> float | None:
    """Entry of `scripts/train.py`: one run in Hydra's output folder.

    Returns:
        The best validation AUROC, which a search maximises; None if it is undefined.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if cfg.run.estimate:
        estimate(cfg, hydra.mode == RunMode.MULTIRUN)
        return None
    apart = launch_check.starts_processes(cfg.trainer, os.environ)
    if hydra.mode == RunMode.MULTIRUN and apart:
        return _best(sweep.run_apart(list(hydra.overrides.task), folder))
    try:
        result = train(cfg, folder, list(hydra.overrides.task))
    except Preempted as stopped:
        report_stop(stopped, folder)
        raise
    except BaseException as error:
        wandb_logger.finish(1)
        if not isinstance(error, InputError | SystemExit):
            print(resume_advice(folder))
        raise
    wandb_logger.finish(0)
    return _best(result)


def _best(result: dict[str, Any]) -> float | None:
    best = result["val"]["auroc"]
    return None if best is None or math.isnan(best) else best


def train(cfg: Train, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Fit, score the best checkpoint on validation and test, and write a complete run folder.

    Args:
        folder: a new folder, or the one that `cfg.run.resume` names.
        overrides: command-line overrides, stored in `provenance.json`.

    Returns:
        The content of `result.json`.

    Raises:
        Preempted: a signal asked to stop; the run can be resumed.
    """
    resumed = continues(cfg, folder)
    if resumed and cfg.run.resume in (None, AUTO) and (result := finished_result(folder)):
        print(f"this run is already finished: {short_path(folder)}")
        return result
    with Preemption().listening() as preemption, advise_resume(folder):
        if not is_first_process():  # the first process may have written files already
            return _run(cfg, folder, overrides, preemption, resumed)
        run_folder.claim(folder, resumed)
        with run_folder.locked(folder):
            return _run(cfg, folder, overrides, preemption, resumed)


def _run(
    cfg: Train, folder: Path, overrides: list[str], preemption: Preemption, resumed: bool
) -> dict[str, Any]:
    started = time.perf_counter()
    settle_device(cfg)
    trained = folder if resumed and has_checkpoint(folder) else None  # it holds the weights
    build.check_model(cfg, trained is None)
    studies = build.build_studies(cfg, trained=trained)
    cfg.data.labels = studies.labels  # the list, since "all labels" may change later
    data = build.build_data(cfg, studies)
    watchers = build.build_watchers(cfg, folder)
    entries = partial(own_entries, cfg, studies)
    saving = build.build_saving(cfg, folder, entries, preemption)
    trainer = build.build_trainer(cfg, folder, watchers, saving)
    settle_momentum([cfg], data, trainer.world_size)
    check_training(cfg, data, trainer.world_size)
    model = build.build_classifier(cfg, data, pretrained=trained is None)
    start = start_of(cfg, folder, studies.fingerprint, trainer.world_size) if resumed else Start()
    data = build.serve(cfg, data, model.backbone, trainer.strategy.root_device)
    data.first = start.epochs, start.batches
    if is_first_process():
        summary.print_studies(studies)
        if start.checkpoint is not None:
            print(f"continues after {start.describe()} ({start.checkpoint.name})")
    provenance = run_folder.provenance(overrides, studies)
    loggers = partial(build.build_loggers, cfg, folder)
    opening = Opening(cfg, folder, provenance, start if resumed else None, loggers)
    own: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    own[:] = [opening, *own, *(make_callbacks(cfg, folder, own) if cfg.callbacks else [])]

    with (
        failure_marked(folder, lambda: opening.is_done and is_first_process()),
        advise_resume(folder),
        explain_out_of_memory(cfg),
    ):
        pl.seed_everything(cfg.seed, verbose=False)
        try:
            trainer.fit(model, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
        except MisconfigurationException as error:  # a check that Lightning needs the data for
            raise InputError(f"trainer: {first_sentence(error)}") from None
        except LoadingError:
            if trainer.world_size == 1:
                preemption.obey()  # a signal to the whole job also ends the loader's processes
            raise
        fitted = time.perf_counter()

        best = load_checkpoint(run_folder.checkpoint(folder, "best"))
        score(trainer, model, data, best)
        progress = trainer.current_epoch, trainer.global_step
        result = summary.result(cfg, studies, model, *progress, summary.watched(watchers))
        result |= {"best_epoch": best["epochs"]}
        result |= {"fit_s": fitted - started, "total_s": time.perf_counter() - started}
        if is_first_process():
            _write(cfg, folder, studies, model, result)
            wandb_logger.record(run_folder.finite(result))
            limits = summary.test_limits(studies, model, studies.labels)
            closing.print_result(result, folder, limits)
    return result


def _write(
    cfg: Train, folder: Path, studies: Studies, model: Classifier, result: dict[str, Any]
) -> None:
    for split, predictions in model.predictions.items():
        table = run_folder.prediction_table(
            studies.table, studies.labels, predictions, cfg.run.name_images
        )
        run_folder.write_predictions(folder / "predictions" / f"{split}.csv", table)
    run_folder.write_json(folder / run_folder.RESULT, result)


def score(
    trainer: pl.Trainer, model: Classifier, data: XrayDataModule, checkpoint: dict[str, Any]
) -> None:
    """Store a checkpoint's scores and predictions in the model; log the test scores."""
    model.load_state_dict(checkpoint["state_dict"])
    model.on_load_checkpoint(checkpoint)
    # If the weights are averaged, the checkpoint holds their average.
    trainer.callbacks = []  # type: ignore[attr-defined]
    loggers, trainer.loggers = trainer.loggers, []  # this validation was logged in the fit
    trainer.validate(model, datamodule=data, verbose=False)
    trainer.loggers = loggers
    trainer.test(model, datamodule=data, verbose=False)
