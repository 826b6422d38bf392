"""Score a checkpoint again, with the code that scored it in training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fluoroscope import build
from fluoroscope.config.place_checks import checkpoints_of
from fluoroscope.config.schema import plain
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.study_table import Studies, people_columns
from fluoroscope.evaluation import calibrating, console_lines, writing
from fluoroscope.evaluation.assembly import make_evaluation
from fluoroscope.evaluation.attributes import find_attributes
from fluoroscope.evaluation.chosen_images import Chosen, average, set_aside
from fluoroscope.evaluation.comparisons import against, elsewhere, subgroups
from fluoroscope.evaluation.contents import Evaluation
from fluoroscope.evaluation.other_models import Loading
from fluoroscope.evaluation.scoring import Settings
from fluoroscope.evaluation.subject import Subject, open_subject
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.model.classifier import Classifier
from fluoroscope.probes.masks import Lungs
from fluoroscope.probes.probing import find_lungs, probe
from fluoroscope.run import closing, run_folder, summary
from fluoroscope.run.collection_scores import collection_scores
from fluoroscope.run.resume import check_weights
from fluoroscope.trained.calibration import Calibration
from fluoroscope.trained.inputs import measure


def main(cfg: DictConfig) -> None:
    """Entry of `scripts/evaluate.py`."""
    evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))


def evaluate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Write and print scores, their intervals and the predictions of one split.

    Returns:
        The content of `result.json`; empty in all processes but the first.

    Raises:
        InputError: if there is no checkpoint, if its own data have changed, if the model was
            trained on the images, or if another collection has none of the model's labels.
    """
    if is_first_process():
        run_folder.claim(folder, can_resume=False)
    subject = open_subject(cfg)
    studies, labels = subject.studies, list(subject.labels)
    lungs = open_lungs(cfg, subject)
    trainer = build.build_trainer(subject.config, folder)
    model, calibration = score_split(cfg, subject, trainer)
    if not trainer.is_global_zero:
        return {}
    loading = Loading.of(subject.config, str(trainer.precision))
    chosen = choose_images(cfg, subject, model, calibration, loading)
    images = chosen.scored(studies, model.thresholds, cfg.points[0], model.own_scores)
    if chosen.predictions is model.predictions["test"]:
        images.scores["test"]["loss"] = model.scores["test"]["loss"]
    result = {
        "checkpoint": " + ".join(checkpoints_of(cfg)),
        "source": studies.source,
        "split": cfg.split,
        "labels": labels,
        "labels_not_scored": [label for label in studies.labels if label not in labels],
        "labels_in_collection": list(subject.labels.values()),
        "split_fingerprint": studies.fingerprint,
        **summary.about_patients(studies),
        "patients_compared": subject.compared,
        "test": summary.test_scores(studies, images, labels),
        **collection_scores(studies, chosen.predictions, labels),
    }
    table = run_folder.prediction_table(
        *(studies.table, studies.labels, chosen.predictions, cfg.run.name_images),
        more=people_columns(studies.table),
    )
    known, own = studies.patients_known, model.own_scores
    settings = Settings(list(cfg.points), cfg.prevalence, known, own)
    fingerprint = subject.trained.fingerprint
    evaluation = make_evaluation(result, table, fingerprint, chosen.calibration, settings)
    evaluation = with_comparisons(cfg, subject, evaluation, chosen, table, loading)
    evaluation = with_probes(subject, evaluation, table, lungs)
    run_folder.write_predictions(folder / "predictions" / f"{cfg.split}.csv", table)
    kept = ""
    if calibration is not None and subject.own and not subject.others.members:
        kept = calibrating.keep(subject.trained, calibration, folder)
    writing.write(evaluation, table, folder, cfg.run.name_images)
    if not subject.others.members:  # a card is about one model
        writing.write_card(subject.trained, calibration, evaluation, folder)
    run_folder.write_json(folder / run_folder.RESULT, result)
    limits = summary.test_limits(studies, images, labels)
    sections = console_lines.sections(evaluation, kept, limits)
    closing.print_evaluation(result, folder, limits, sections)
    return result


def score_split(
    cfg: DictConfig, subject: Subject, trainer: pl.Trainer
) -> tuple[Classifier, Calibration | None]:
    """The first model with its predictions, and its calibration, which may be fitted here."""
    config, studies, trained = subject.config, subject.studies, subject.trained
    data = build.build_data(config, studies)
    model = build.build_classifier(config, data, pretrained=False)
    check_weights(model, trained.checkpoint)
    model.load_state_dict(trained.checkpoint["state_dict"])
    model.on_load_checkpoint(trained.checkpoint)
    may_fit, points = subject.own and not subject.others.members, list(cfg.points)
    find = calibrating.stored_for_own if may_fit else calibrating.stored_for_other
    calibration = find(trained, points)
    validation = None
    if may_fit and calibration is None:
        validation = predict(trainer, model, data, studies, "val")
    predict(trainer, model, data, studies, cfg.split)
    if validation is not None and trainer.is_global_zero:
        inputs = measure(trained, studies.table, config.data.num_workers)
        calibration = calibrating.fit_own(trained, points, validation, inputs)
    return model, calibration


def choose_images(
    cfg: DictConfig,
    subject: Subject,
    model: Classifier,
    calibration: Calibration | None,
    loading: Loading,
) -> Chosen:
    """The images that are scored, with the probabilities of the model or the ensemble."""
    given = subject.others, subject.trained, calibration, model.predictions["test"]
    chosen = average(*given, subject.studies, cfg.split, list(cfg.points), loading)
    if cfg.recalibrate is None:
        return chosen
    return set_aside(chosen, subject.studies, cfg.recalibrate)


def with_comparisons(
    cfg: DictConfig,
    subject: Subject,
    evaluation: Evaluation,
    chosen: Chosen,
    table: pd.DataFrame,
    loading: Loading,
) -> Evaluation:
    """The evaluation with subgroups, another model and another collection."""
    studies, labels = subject.studies, list(subject.labels)
    attributes = find_attributes(
        *(studies.table.iloc[table["row"]], plain(cfg.subgroups), plain(subject.config)["data"])
    )
    groups = subgroups(table, studies, attributes, labels, chosen.calibration, cfg.points[0])
    scored = chosen.predictions, studies, cfg.split, labels
    there = None
    if not subject.own:
        scores = evaluation.labels
        there = elsewhere(chosen, table, studies, subject.labels, scores, cfg.recalibrate)
    return replace(
        evaluation,
        notes=[*chosen.notes(), *evaluation.notes],
        calibrated=chosen.calibrated or evaluation.calibrated,
        ensemble=chosen.ensemble,
        subgroups=groups,
        against=against(subject.others, *scored, cfg.margin, loading),
        collection=there,
    )


def predict(
    trainer: pl.Trainer, model: Classifier, data: XrayDataModule, studies: Studies, split: str
) -> pd.DataFrame:
    """Score the images of a split, on all processes; see `run_folder.prediction_table`."""
    data.tested = split
    trainer.test(model, datamodule=data, verbose=False)
    return run_folder.prediction_table(studies.table, studies.labels, model.predictions["test"])


def open_lungs(cfg: DictConfig, subject: Subject) -> Lungs | None:
    """Where the lungs of the images are, for the probes; None without probes."""
    if not cfg.probes:
        return None
    studies, size_px = subject.studies, subject.config.data.image_px
    return find_lungs(studies, np.flatnonzero(studies.rows_of(cfg.split)), size_px, cfg.masks)


def with_probes(
    subject: Subject, evaluation: Evaluation, table: pd.DataFrame, lungs: Lungs | None
) -> Evaluation:
    """The evaluation with the shortcut probes of the scored images."""
    if lungs is None:
        return evaluation
    data = build.build_data(subject.config, subject.studies)
    why_not = {label: own.why_not for label, own in evaluation.labels.items()}
    found = probe(subject.trained, data, table["row"].to_numpy(), lungs, why_not)
    return replace(evaluation, probes=found)
