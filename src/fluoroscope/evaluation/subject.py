"""What an evaluation scores: models and images, opened and checked before anything is computed."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope.config.place_checks import checkpoints_of, find_checkpoint
from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import left_out
from fluoroscope.config.train import Data, Train, check_train
from fluoroscope.data.leakage import check_unseen
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError
from fluoroscope.evaluation.attributes import find_attributes
from fluoroscope.evaluation.other_collection import draw_patients
from fluoroscope.evaluation.other_models import Others, open_others
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.model.own_scores import own_scores
from fluoroscope.run import summary
from fluoroscope.run.starting_weights import warn_of_weights
from fluoroscope.sources import names
from fluoroscope.sources.reading.shared_labels import read_shared
from fluoroscope.trained.loading import Trained, open_trained
from fluoroscope.trained.same_studies import same_studies


class Subject(NamedTuple):
    """What is evaluated.

    Attributes:
        trained: the model, or the first of an ensemble.
        config: of its run, with what the command line sets.
        studies: the images.
        labels: those to score, and their names in the collection.
        own: whether the collection is the model's own.
        compared: of `leakage.check_unseen`.
        others: further models.
    """

    trained: Trained
    config: Train
    studies: Studies
    labels: dict[str, str]
    own: bool
    compared: bool
    others: Others


def open_subject(cfg: DictConfig) -> Subject:
    """Open the models and read the images; refuse what cannot be scored."""
    first, *further = checkpoints_of(cfg)
    accelerator = "cpu" if cfg.trainer.accelerator == "cpu" else "auto"
    trained = open_trained(find_checkpoint(first), accelerator)
    checkpoint = trained.checkpoint
    own = OmegaConf.select(cfg, "data.source") is None
    config = training_config(checkpoint["config"], cfg)
    own_scores(config.scores)  # to refuse
    if own:
        _check_places(config, trained.place)
        studies = same_studies(config, checkpoint)
        labels = dict(zip(studies.labels, studies.labels, strict=True))
    else:
        # Of another collection only the split that is scored needs images.
        studies, labels = _read_other(checkpoint, config, cfg.split != "all" and cfg.split)
    alike = cfg.already_seen == "allow"
    compared = check_unseen(checkpoint, studies, cfg.split, alike)
    scored = studies.table[studies.rows_of(cfg.split)]
    find_attributes(scored, plain(cfg.subgroups), plain(config)["data"])  # to refuse
    if cfg.recalibrate is not None:
        draw_patients(pd.factorize(scored["patient"])[0], cfg.recalibrate)  # to refuse
    about = checkpoint, studies, cfg.split, alike, accelerator
    others = open_others(further, cfg.against, *about, list(cfg.points))
    if is_first_process():
        summary.warn_of_patients(studies)
    warn_of_weights(checkpoint["config"]["backbone"], studies.source)
    return Subject(trained, config, studies, labels, own, compared, others)


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
    if cfg.scores is not None:
        config.scores = cfg.scores
    # Score the whole split, with the number of processes given here, not that of the training.
    config.trainer.update({"num_nodes": 1, "strategy": "auto", "limit_test_batches": None})
    config.trainer.devices = 1 if cfg.trainer.devices is None else cfg.trainer.devices
    config.data.update({"features": "live", "feature_views": None})
    config.backbone.update({"weights": "none", "file": None})  # the checkpoint has them
    config.run.resume = None
    return check_train(config)
