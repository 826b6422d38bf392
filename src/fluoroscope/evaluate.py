"""Score a checkpoint again, with the code that scored it in training."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import build
from fluoroscope.config.evaluate import checkpoints_of
from fluoroscope.config.place_checks import find_checkpoint
from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import left_out
from fluoroscope.config.train import Data, Train, check_train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.leakage import check_unseen
from fluoroscope.data.study_table import Studies, people_columns
from fluoroscope.errors import InputError
from fluoroscope.evaluation import calibrating, console_lines, writing
from fluoroscope.evaluation.assembly import make_evaluation
from fluoroscope.evaluation.scoring import Settings
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.model.classifier import Classifier
from fluoroscope.run import closing, run_folder, summary
from fluoroscope.run.collection_scores import collection_scores
from fluoroscope.run.resume import check_same_studies, check_weights
from fluoroscope.sources import names
from fluoroscope.sources.reading.shared_labels import read_shared
from fluoroscope.trained.inputs import measure
from fluoroscope.trained.loading import open_trained


def main(cfg: DictConfig) -> None:
    """Entry of `scripts/evaluate.py`."""
    evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))


def evaluate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Write and print scores, their interval and the predictions of one split.

    Returns:
        The content of `result.json`.

    Raises:
        InputError: if there is no checkpoint, if its own data have changed, if the model was
            trained on the images, or if another collection has none of the model's labels.
    """
    if is_first_process():
        run_folder.claim(folder, can_resume=False)
    first, *_ = map(find_checkpoint, checkpoints_of(cfg))
    trained = open_trained(first, "cpu" if cfg.trainer.accelerator == "cpu" else "auto")
    checkpoint = trained.checkpoint
    own = OmegaConf.select(cfg, "data.source") is None
    config = training_config(checkpoint["config"], cfg)
    labels: dict[str, str] = {}  # those to score, and their names in the collection
    if own:
        _check_places(config, first)
        studies = build.build_studies(config)
        check_same_studies(checkpoint, studies.fingerprint)
        labels = dict(zip(studies.labels, studies.labels, strict=True))
    else:
        # Of another collection only the split that is scored needs images.
        studies, labels = _read_other(checkpoint, config, cfg.split != "all" and cfg.split)
    compared = check_unseen(checkpoint, studies, cfg.split, cfg.already_seen == "allow")
    if is_first_process():
        summary.warn_of_patients(studies)
    data = build.build_data(config, studies)
    model = build.build_classifier(config, data, pretrained=False)
    check_weights(model, checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    model.on_load_checkpoint(checkpoint)
    trainer = build.build_trainer(config, folder)
    find = calibrating.stored_for_own if own else calibrating.stored_for_other
    points = list(cfg.points)
    calibration = find(trained, points)
    validation = None
    if own and calibration is None:
        validation = predict(trainer, model, data, studies, "val")
    predict(trainer, model, data, studies, cfg.split)
    result = {
        "checkpoint": str(first),
        "source": studies.source,
        "split": cfg.split,
        "labels": list(labels),
        "labels_not_scored": [label for label in studies.labels if label not in labels],
        "labels_in_collection": list(labels.values()),
        "split_fingerprint": studies.fingerprint,
        **summary.about_patients(studies),
        "patients_compared": compared,
        "test": summary.test_scores(studies, model, list(labels)),
        **collection_scores(studies, model.predictions["test"], list(labels)),
    }
    if trainer.is_global_zero:
        if validation is not None:
            inputs = measure(trained, studies.table, config.data.num_workers)
            calibration = calibrating.fit_own(trained, points, validation, inputs)
        table = run_folder.prediction_table(
            *(studies.table, studies.labels, model.predictions["test"], cfg.run.name_images),
            more=people_columns(studies.table),
        )
        settings = Settings(points, cfg.prevalence, studies.patients_known)
        evaluation = make_evaluation(result, table, trained.fingerprint, calibration, settings)
        run_folder.write_predictions(folder / "predictions" / f"{cfg.split}.csv", table)
        kept = calibrating.keep(trained, calibration, folder) if own and calibration else ""
        writing.write(evaluation, table, folder, cfg.run.name_images)
        run_folder.write_json(folder / run_folder.RESULT, result)
        limits = summary.test_limits(studies, model, list(labels))
        closing.print_evaluation(
            result, folder, limits, console_lines.sections(evaluation, kept, limits)
        )
    return result


def predict(
    trainer: pl.Trainer, model: Classifier, data: XrayDataModule, studies: Studies, split: str
) -> pd.DataFrame:
    """Score the images of a split, on all processes; see `run_folder.prediction_table`."""
    data.tested = split
    trainer.test(model, datamodule=data, verbose=False)
    return run_folder.prediction_table(studies.table, studies.labels, model.predictions["test"])


def _check_places(trained: Train, checkpoint: Path) -> None:
    """Refuse a checkpoint that was moved away from the names that only its run folder holds."""
    missing = [f"data.{key}" for key in left_out(plain(trained)["data"])]
    if missing:
        raise InputError(
            f"{checkpoint} does not hold {' and '.join(missing)}, which may name people or places; "
            f"put the run's config.yaml into {checkpoint.absolute().parents[1]}"
            + (", or add data.root=DIR" if missing == ["data.root"] else "")
        )


def _read_other(
    checkpoint: dict[str, Any], trained: Train, split: bool | str
) -> tuple[Studies, dict[str, str]]:
    """The studies of another collection, and its names of the labels that the model knows."""
    before = checkpoint["config"]["data"]
    source = checkpoint.get("source", before["source"])
    known = source if source in names() and source != "prepared" else None
    data = plain(trained)["data"]
    return read_shared(data, before["labels"], known, before["label_map"], split)


def training_config(before: dict[str, Any], cfg: DictConfig) -> Train:
    """The run's own configuration with what the command line sets for the evaluation.

    Args:
        before: configuration in the checkpoint, complete.
        cfg: configuration from `conf/evaluate.yaml`; null keeps the run's own value.
    """
    config = OmegaConf.create(before)
    data = OmegaConf.to_container(cfg.data)
    assert isinstance(data, dict)
    if "source" in data:
        # Another collection: keep only the old keys that every source has.
        common = {key: config.data[key] for key in Data.__dataclass_fields__}
        config.data = {**common, "root": MISSING, "label_map": {}}
        config.data.update({"views": None, "splits": "given", "fold": None})
    # The model knows the labels it was trained on and no others.
    data["labels"] = list(config.data.labels)
    for key, value in data.items():
        if value is not None or key not in Data.__dataclass_fields__:
            OmegaConf.update(config, f"data.{key!s}", value, force_add=True)
    for key, value in cfg.trainer.items():
        if value is not None:
            OmegaConf.update(config, f"trainer.{key!s}", value)
    # Score the whole split, with the number of processes given here, not that of the training.
    config.trainer.update({"num_nodes": 1, "strategy": "auto", "limit_test_batches": None})
    config.trainer.devices = 1 if cfg.trainer.devices is None else cfg.trainer.devices
    config.data.update({"features": "live", "feature_views": None})
    config.backbone.update({"weights": "none", "file": None})  # the checkpoint has them
    config.run.resume = None
    return check_train(config)
