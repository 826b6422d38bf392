"""A checkpoint's scores once more, by the code that scored it in training."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import build, runs, summary
from fluoroscope.config import Data, Train, check_train
from fluoroscope.data.seen import marks, patient_marks
from fluoroscope.errors import InputError
from fluoroscope.resume import check_same_studies, load_checkpoint
from fluoroscope.train import hush, is_first_process


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
        runs.claim(folder, resume=False)
    checkpoint = load_checkpoint(Path(cfg.checkpoint))
    own = OmegaConf.select(cfg, "data.source") is None
    if own and cfg.split == "all":
        raise InputError("split=all would score the training images too; give another data=")
    trained = training_config(checkpoint["config"], cfg)
    studies = build.build_studies(trained, split=cfg.split != "all")
    if own:
        check_same_studies(checkpoint, studies.fingerprint)
    check_unseen(checkpoint, studies, cfg.split)
    if cfg.known_patients == "refuse":
        check_strangers(checkpoint, studies, cfg.split)
    data = build.build_data(trained, studies)
    model = build.build_classifier(trained, data, pretrained=False)
    model.load_state_dict(checkpoint["state_dict"])
    model.on_load_checkpoint(checkpoint)
    trainer = build.build_trainer(trained, folder)
    data.tested = cfg.split
    trainer.test(model, datamodule=data, verbose=False)
    result = {
        "checkpoint": str(cfg.checkpoint),
        "source": trained.data.source,
        "split": cfg.split,
        "labels": studies.labels,
        "split_fingerprint": studies.fingerprint,
        "test": summary.test_scores(studies, model),
    }
    if trainer.is_global_zero:
        runs.write_predictions(
            folder / "predictions" / f"{cfg.split}.csv",
            studies.table,
            studies.labels,
            model.predictions["test"],
            cfg.run.name_images,
        )
        runs.write_json(folder / runs.RESULT, result)
        summary.print_evaluation(result, folder)
    return result


def check_unseen(checkpoint: dict[str, Any], studies: build.Studies, split: str) -> None:
    """Refuse to score images that the model was trained or chosen on, under whatever source.

    The run's own validation split is told by its name.
    """
    if split == "val" and checkpoint["split_fingerprint"] == studies.fingerprint:
        return
    rows = studies.table if split == "all" else studies.table[studies.table["split"] == split]
    seen = set(checkpoint["seen"].tolist())
    known = sum(mark in seen for mark in marks(rows["path"].tolist()))
    if known:
        raise InputError(
            f"{known} of the {len(rows)} images to score were in the training or validation split "
            "of this checkpoint; score its own test split (no data=), or another collection"
        )


def check_strangers(checkpoint: dict[str, Any], studies: build.Studies, split: str) -> None:
    """Refuse to score other images of patients that the model was trained or chosen on."""
    own_val = split == "val" and checkpoint["split_fingerprint"] == studies.fingerprint
    if own_val or studies.patients_of is None or "patients" not in checkpoint:
        return
    rows = studies.table if split == "all" else studies.table[studies.table["split"] == split]
    seen = set(checkpoint["patients"].tolist())
    patients = rows["patient"].unique().tolist()
    known = sum(mark in seen for mark in patient_marks(patients, studies.patients_of))
    if known:
        raise InputError(
            f"{known} of the {len(patients)} patients to score were in the training or validation "
            "split of this checkpoint; score its own test split (no data=) or another collection, "
            "or, if these are other people with the same numbers, add known_patients=allow"
        )


def training_config(before: dict[str, Any], cfg: DictConfig) -> Train:
    """The run's own configuration with what the command line sets for the evaluation.

    Args:
        before: out of the checkpoint.
        cfg: of `conf/evaluate.yaml`; null keeps the run's own value.
    """
    config = OmegaConf.create(before)
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
    config.run.resume = None
    return check_train(config)
