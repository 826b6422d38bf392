"""A checkpoint's scores once more, by the code that scored it in training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import build
from fluoroscope.config.train import Data, Train, check_train
from fluoroscope.data.leakage import alike_frac, marks, patient_marks, pictures
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder, summary
from fluoroscope.run.resume import check_same_studies, load_checkpoint
from fluoroscope.sources.settings import completed
from fluoroscope.train import hush, is_first_process

ALIKE_FRAC = 0.02  # films drawn or taken alike do look alike now and then


def main(cfg: DictConfig) -> None:
    """Entry of `scripts/evaluate.py`."""
    evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))


def evaluate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Scores, their interval and the predictions of one split.

    Returns:
        What `result.json` holds.

    Raises:
        InputError: no checkpoint, data other than its own under the name of its own, images the
            model has seen, or a collection without the model's labels.
    """
    hush()
    if is_first_process():
        run_folder.claim(folder, can_resume=False)
    checkpoint = load_checkpoint(Path(cfg.checkpoint))
    own = OmegaConf.select(cfg, "data.source") is None
    if own and cfg.split == "all":
        raise InputError("split=all would score the training images too; give another data=")
    trained = training_config(checkpoint["config"], cfg)
    studies = build.build_studies(trained, split=cfg.split != "all")
    if own:
        check_same_studies(checkpoint, studies.fingerprint)
    check_unseen(checkpoint, studies, cfg.split, cfg.already_seen == "allow")
    data = build.build_data(trained, studies)
    model = build.build_classifier(trained, data, pretrained=False)
    model.load_state_dict(checkpoint["state_dict"])
    model.on_load_checkpoint(checkpoint)
    trainer = build.build_trainer(trained, folder)
    data.tested = cfg.split
    trainer.test(model, datamodule=data, verbose=False)
    result = {
        "checkpoint": str(cfg.checkpoint),
        "source": studies.source,
        "split": cfg.split,
        "labels": studies.labels,
        "split_fingerprint": studies.fingerprint,
        "test": summary.test_scores(studies, model),
    }
    if trainer.is_global_zero:
        run_folder.write_predictions(
            folder / "predictions" / f"{cfg.split}.csv",
            studies.table,
            studies.labels,
            model.predictions["test"],
            cfg.run.name_images,
        )
        run_folder.write_json(folder / run_folder.RESULT, result)
        summary.print_evaluation(result, folder)
    return result


def check_unseen(
    checkpoint: dict[str, Any], studies: build.Studies, split: str, allowed: bool = False
) -> None:
    """Refuse to score what the model was trained or chosen on, under whatever source and name.

    The run's own splits are told by their fingerprint and need no look.

    Args:
        allowed: score patients that are called like those of the training, and pictures that look
            like its own, but never the same pixels.
    """
    own = checkpoint["split_fingerprint"] == studies.fingerprint
    if own and split != "all":
        return
    rows = np.isin(studies.table["split"], [split]) | (split == "all")
    table, survey = studies.table[rows], studies.survey[rows]
    where = "were in the training or validation split of this checkpoint"
    advice = "score its own test split (no data=), or another collection"
    known = _seen(checkpoint, table, survey)
    if known:
        raise InputError(f"{known} of the {len(table)} images to score {where}; {advice}")
    if allowed or "pictures" not in checkpoint:
        return
    known, patients = _known_patients(checkpoint, table, studies.patients_of)
    if known:
        raise InputError(
            f"{known} of the {patients} patients to score {where}; {advice}, or, if these are "
            "other people with the same numbers, add already_seen=allow"
        )
    share = alike_frac(pictures(survey), checkpoint["pictures"].numpy())
    if share > ALIKE_FRAC:
        raise InputError(
            f"{share:.0%} of the images to score look like ones that {where}, such as a resized "
            f"copy of them does; {advice}, or, if they are others, add already_seen=allow"
        )


def _seen(checkpoint: dict[str, Any], table: pd.DataFrame, survey: pd.DataFrame) -> int:
    """Images with pixels that the checkpoint knows; one of an older version knows files alone."""
    known = set(checkpoint["seen"].tolist())
    if "pictures" not in checkpoint:
        print("this checkpoint is older than marks of patients and pictures: files are compared")
        return sum(mark in known for mark in marks(table["path"].tolist()))
    return sum(pixels in known for pixels in survey["exact"].tolist())


def _known_patients(
    checkpoint: dict[str, Any], table: pd.DataFrame, patients_of: str | None
) -> tuple[int, int]:
    """How many of the patients the checkpoint knows, and of how many."""
    patients = table["patient"].unique().tolist()
    if patients_of is None:
        return 0, len(patients)
    known = set(checkpoint["patients"].tolist())
    return sum(mark in known for mark in patient_marks(patients, patients_of)), len(patients)


def training_config(before: dict[str, Any], cfg: DictConfig) -> Train:
    """The run's own configuration with what the command line sets for the evaluation.

    Args:
        before: out of the checkpoint.
        cfg: of `conf/evaluate.yaml`; null keeps the run's own value.
    """
    config = OmegaConf.create({**before, "data": completed(before["data"])})
    data = OmegaConf.to_container(cfg.data)
    assert isinstance(data, dict)
    if "source" in data:
        # Another collection: of the old one's keys those stay that every source has.
        common = {key: config.data[key] for key in Data.__dataclass_fields__}
        config.data = {**common, "root": MISSING, "views": None, "splits": "given", "fold": None}
    # The model knows the labels it was trained on and no others.
    data["labels"] = list(config.data.labels)
    for key, value in data.items():
        if value is not None or key not in Data.__dataclass_fields__:
            OmegaConf.update(config, f"data.{key!s}", value, force_add=True)
    for key, value in cfg.trainer.items():
        if value is not None:
            OmegaConf.update(config, f"trainer.{key!s}", value)
    # The whole split, by as many processes as are asked for here, however the training was spread.
    config.trainer.update({"num_nodes": 1, "strategy": "auto", "limit_test_batches": None})
    config.trainer.devices = 1 if cfg.trainer.devices is None else cfg.trainer.devices
    config.data.update({"features": "live", "feature_views": None})
    config.run.resume = None
    return check_train(config)
