"""Write the files of a run folder so that a kill or a full disk loses none of them."""

import json
import math
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric.plugins import TorchCheckpointIO

from fluoroscope.atomic_write import only_writer, write_atomically
from fluoroscope.commands import HOME
from fluoroscope.data.study_table import COLLECTION, Studies
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.escaping import csv_table
from fluoroscope.launch import run_status
from fluoroscope.launch.run_status import CONFIG, FAILED, RESULT, check_free  # noqa: F401

checkpoint = run_status.checkpoint
PROVENANCE, METRICS, LOCK = "provenance.json", "metrics.csv", ".lock"
PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "timm", "albumentations", "numpy")


def claim(folder: Path, resume: bool = False, can_resume: bool = True) -> None:
    """Make the folder, and refuse one that holds a run that is not to be resumed.

    Args:
        resume: whether the run in the folder is to be resumed.
        can_resume: whether the command can resume a run.

    Raises:
        InputError: if the folder holds another run, or cannot be written.
    """
    if not resume:
        check_free(folder, can_resume)
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"{folder} cannot be written; change its permissions, or give another run.dir"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process from writing this run.

    The lock ends with the process. On a file system without locks it has no effect.

    Raises:
        InputError: if another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refusal = (
        f"another process is writing the run in {folder}; wait for it, or give another run.dir"
    )
    with only_writer(folder / LOCK, refusal):
        yield


def write_text(path: Path, text: str) -> None:
    """Write then rename: readers see the old file or the new one, never half of it."""
    with write_atomically(path) as part:
        part.write_text(text)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Like `write_text`; NaN and infinity become null, since JSON has neither."""
    write_text(path, json.dumps(finite(values), indent=2) + "\n")


def read_json(path: Path, advice: str = "restore it from a copy") -> dict[str, Any]:
    """The values of a JSON file of a run folder.

    Args:
        advice: what to do about a damaged file.

    Raises:
        InputError: if the file is missing, damaged, or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({first_sentence(error)}); {advice}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no JSON object; {advice}")
    return values


def finite(value: Any) -> Any:
    """The value with None in place of NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def new_run_id() -> str:
    """A random id, or the one that the agent of a W&B sweep has chosen."""
    of_agent = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    return of_agent or uuid.uuid4().hex[:8]


def provenance(overrides: list[str], studies: Studies) -> dict[str, Any]:
    """The information to repeat the run, without anything that names a machine or a person."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "overrides": overrides,
        "split_fingerprint": studies.fingerprint,
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain")),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu_cores": os.cpu_count(),
        "decisions": [decision._asdict() for decision in studies.decisions],
    }


def git(*arguments: str) -> str | None:
    """Output of a git command in this code's clone; None for an installed package."""
    own = ["git", f"--git-dir={HOME / '.git'}", f"--work-tree={HOME}"]  # of no folder above it
    quiet: dict[str, Any] = {"text": True, "timeout": 10, "stderr": subprocess.DEVNULL}
    try:
        return str(subprocess.check_output([*own, *arguments], **quiet)).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def prediction_table(
    table: pd.DataFrame,
    labels: list[str],
    predictions: Any,
    name_images: bool = False,
    more: Sequence[str] = (),
) -> pd.DataFrame:
    """One row per image: its row in the study table, its patient as a running number (`group`), its
    collection if there are several, and per label the truth (NaN if unknown) and the probability.

    Args:
        table: study table.
        labels: its label columns.
        predictions: with `rows` `[N]` of the study table and `probability` `[N, K]`.
        name_images: add the columns `path` and `patient`.
        more: other columns of the study table to add.
    """
    index, probability = predictions.rows.numpy(), predictions.probability.numpy()
    rows = table.iloc[index]
    # Groups the images of a patient, for intervals over patients, without naming the patient.
    columns: dict[str, Any] = {"row": index, "group": pd.factorize(table["patient"])[0][index]}
    if name_images:
        more = ("path", "patient", *more)
    joined = (COLLECTION,) if COLLECTION in table and COLLECTION not in labels else ()
    columns |= {name: rows[name].array for name in (*more, *joined)}
    for k, label in enumerate(labels):
        columns[label] = rows[label].to_numpy()
        columns[f"{label}_probability"] = probability[:, k]
    return pd.DataFrame(columns)


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Write a `prediction_table` as CSV."""
    path.parent.mkdir(exist_ok=True)
    write_text(path, csv_table(predictions).to_csv(index=False))


@contextmanager
def write_checkpoint(path: Path) -> Iterator[Path]:
    """Yield a partial file that replaces the checkpoint at the end; until then the old one stays.

    Raises:
        InputError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with write_atomically(path) as part:
            yield part
    # torch's zip writer turns a failed write into a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the file system takes no more"
        before = "the previous one is intact; " if path.exists() else ""
        raise InputError(
            f"cannot write {path} ({reason}); {before}free disk space and continue with "
            f"run.resume={path.parent.parent}"
        ) from error


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints with `write_checkpoint`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        with write_checkpoint(Path(path)) as part:
            torch.save(checkpoint, part)
