"""Write and check the run folder of one head of an ablation."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf

from fluoroscope.ablation.members import Member
from fluoroscope.config.loaded import differences, load_file
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.data.study_table import Studies
from fluoroscope.diagnostics.gatemap import SCORES, TABLE
from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import mark_failed
from fluoroscope.run import run_folder, summary

AGAIN = "remove the head's folder to train it again"


def write_head(
    member: Member,
    folder: Path,
    studies: Studies,
    provenance: Mapping[str, Any],
    fit_s: float,
) -> None:
    """Write the run folder as `scripts/train.py` does, without checkpoints; `result.json` last.

    Raises:
        InputError: if the folder cannot be written.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_text(folder / run_folder.CONFIG, OmegaConf.to_yaml(member.cfg))
        run_id = uuid.uuid4().hex[:8]
        run_folder.write_json(folder / run_folder.PROVENANCE, {"run_id": run_id, **provenance})
        run_folder.write_text(folder / run_folder.METRICS, _metrics(member))
        np.save(folder / TABLE, torch.stack(member.record.gate_open).numpy())
        np.save(folder / SCORES, torch.stack(member.record.grad_score).numpy())
        if member.failed is not None:
            mark_failed(folder, member.failed)
            return
        for split, predictions in member.predictions.items():
            table = run_folder.prediction_table(
                studies.table, studies.labels, predictions, member.cfg.run.name_images
            )
            run_folder.write_predictions(folder / "predictions" / f"{split}.csv", table)
        watched = summary.measured(member.record.metrics.history)
        result = summary.result(member.cfg, studies, member, member.epochs, member.steps, watched)
        result |= {"best_epoch": member.best_epoch + 1, "fit_s": fit_s, "total_s": fit_s}
        run_folder.write_json(folder / run_folder.RESULT, result)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an `OSError`, such as a full disk, into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {folder} ({error.strerror}); remove the cause and repeat the command "
            f"with run.dir={folder.parents[1]}: finished heads are kept"
        ) from None


def keep_momentum(cfgs: Mapping[str, Train], heads: Path) -> None:
    """Give `head.norm_momentum=auto` the number of a head that is already in the folder.

    An ablation that is continued may have begun before `auto` was the default.

    Args:
        cfgs: configurations by name.
        heads: folder of the run folders.
    """
    auto = {name: cfg for name, cfg in cfgs.items() if cfg.head.norm_momentum == "auto"}
    found = [file for name in auto if (file := heads / name / run_folder.CONFIG).exists()]
    if not found:
        return
    with suppress(InputError):  # `check_folder` names what is wrong
        before = load_file(found[0], Train).announced()["head"]["norm_momentum"]
        for cfg in auto.values():
            cfg.head.norm_momentum = before


def check_folder(cfg: Train, folder: Path, studies: Studies) -> None:
    """Refuse a folder that holds another run, or this run on other studies.

    Raises:
        InputError: names the first difference.
    """
    # A process killed while writing leaves a hidden, partial file.
    if not folder.exists() or all(file.name.startswith(".") for file in folder.iterdir()):
        return
    try:
        stored = load_file(folder / run_folder.CONFIG, Train)
    except InputError as refusal:
        raise InputError(f"{refusal}; the ablation can choose another run.dir") from None
    different = [key for key in differences(stored.announced(), plain(cfg)) if _matters(key)]
    if not different and (folder / run_folder.RESULT).exists():
        result = run_folder.read_json(folder / run_folder.RESULT, AGAIN)
        if result.get("split_fingerprint") != studies.fingerprint:
            different = ["its study table"]
    if different:
        raise InputError(
            f"{folder} holds a different run ({different[0]} differs); choose another run.dir"
        )


def _matters(key: str) -> bool:
    """Whether a key can change a result; names, folders and loggers cannot.

    `check_source` compares the features.
    """
    if key in ("data.features", "data.feature_views"):
        return False
    return key == "run.patience" or key.partition(".")[0] not in ("run", "logger")


def check_source(source: Mapping[str, Any], folder: Path) -> None:
    """Refuse a head that was trained on other features, which its configuration does not record.

    Args:
        source: the entries of `provenance.json` that describe the features.
        folder: run folder of the head; it need not exist.

    Raises:
        InputError: names the first difference.
    """
    if not (folder / run_folder.PROVENANCE).exists():
        return
    stored = run_folder.read_json(folder / run_folder.PROVENANCE, AGAIN)
    for key, value in source.items():
        if stored.get(key, value) != value:
            raise InputError(
                f"{folder} was trained with {key}={stored[key]}, not {key}={value}; choose another "
                "run.dir"
            )


def _metrics(member: Member) -> str:
    """Text of `metrics.csv`, in the format of `MetricsCsv`."""
    return pd.DataFrame(member.rows).astype({"epoch": float}).to_csv(index=False)
