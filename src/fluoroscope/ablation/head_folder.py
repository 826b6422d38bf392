"""The run folder of one head of a bank."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf
from yaml import YAMLError

from fluoroscope.ablation.members import Member
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.data.study_table import Studies
from fluoroscope.diagnostics.gatemap import TABLE
from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import mark_failed
from fluoroscope.run import run_folder, summary


def write_head(
    member: Member,
    folder: Path,
    studies: Studies,
    provenance: Mapping[str, Any],
    fit_s: float,
) -> None:
    """The run folder that the head would have left alone, but for checkpoints; its result last.

    Raises:
        InputError: it cannot be written.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_text(folder / run_folder.CONFIG, OmegaConf.to_yaml(member.cfg))
        run_id = uuid.uuid4().hex[:8]
        run_folder.write_json(folder / run_folder.PROVENANCE, {"run_id": run_id, **provenance})
        run_folder.write_text(folder / run_folder.METRICS, _metrics(member))
        np.save(folder / TABLE, torch.stack(member.record.gate_open).numpy())
        if member.failed is not None:
            mark_failed(folder, InputError(member.failed))
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
    """A full disk in one sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {folder} ({error.strerror}); make room, and give the same command with "
            "run.dir of the folder: what is done there stays"
        ) from None


def check_folder(cfg: Train, folder: Path, studies: Studies) -> None:
    """Refuse a folder of anything but this run on these studies.

    Raises:
        InputError: with the first of what is different there.
    """
    # A kill in mid-write leaves a hidden part of a file.
    if not folder.exists() or all(file.name.startswith(".") for file in folder.iterdir()):
        return
    stored = _stored_config(folder / run_folder.CONFIG)
    different = [key for key in _differences(stored, plain(cfg)) if _matters(key)]
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
    """Names, places and loggers do not change a result; when to stop does. `check_source` compares
    the features.
    """
    if key in ("data.features", "data.feature_views"):
        return False
    return key == "run.patience" or key.partition(".")[0] not in ("run", "logger")


def _differences(
    one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """Dotted names of what differs between two nested configurations.

    >>> list(_differences({"seed": 1, "head": {"width": 8}}, {"seed": 1, "head": {"width": 9}}))
    ['head.width']
    """
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}"


def check_source(source: Mapping[str, Any], folder: Path) -> None:
    """Refuse to add to heads that saw other features, which their configuration does not tell.

    Args:
        source: what `provenance` of `write_head` says of them.
        folder: of a head, or nothing yet.

    Raises:
        InputError: with the first of what is different there.
    """
    if not (folder / run_folder.PROVENANCE).exists():
        return
    stored = run_folder.read_json(folder / run_folder.PROVENANCE)
    for key, value in source.items():
        if stored.get(key, value) != value:
            raise InputError(
                f"{folder} was trained with {key}={stored[key]}, not {key}={value}; choose another "
                "run.dir"
            )


def _metrics(member: Member) -> str:
    """As `tracking.MetricsCsv` writes it, at once."""
    return pd.DataFrame(member.rows).astype({"epoch": float}).to_csv(index=False)
