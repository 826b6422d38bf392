"""Resume an interrupted run."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import torch
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_warn

from fluoroscope.config.run_checks import FIXED, RESUMABLE
from fluoroscope.config.schema import keys
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError
from fluoroscope.launch.run_id import is_restarted
from fluoroscope.launch.run_status import AUTO
from fluoroscope.run import run_folder
from fluoroscope.run.checkpoints import keep_as_best

CHECKPOINTS = ("step", "best", "last")  # of two at the same step, the later one in this tuple
# Keys that decide which images the batches of an epoch hold.
DRAWS = (
    "data.batch_size",
    "data.sampler",
    "data.order_seed",
    "trainer.accumulate_grad_batches",
    "trainer.limit_train_batches",
)


class Start(NamedTuple):
    """Start of a fit: `checkpoint` is None at the start of the first epoch."""

    checkpoint: Path | None = None
    epochs: int = 0  # finished epochs
    batches: int = 0  # finished batches of the next epoch
    step: int = 0

    def describe(self) -> str:
        """The finished part in words.

        >>> Start(epochs=2, batches=1).describe()
        '2 epochs and 1 batch'
        """
        parts = {"epoch": self.epochs, "batch": self.batches}
        plural = {"epoch": "s", "batch": "es"}
        return " and ".join(
            f"{n} {part}{plural[part] if n > 1 else ''}" for part, n in parts.items() if n
        )


def continues(cfg: Train, folder: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to continue the run in the folder: if `run.resume` names it, if `auto` finds a run
    in it, or if SLURM has started the job again and it holds a run.

    Raises:
        InputError: if the run found is one of another model.
    """
    if cfg.run.resume not in (None, AUTO):
        return True
    if (
        not (is_restarted(environ) or cfg.run.resume == AUTO)
        or not (folder / run_folder.CONFIG).exists()
    ):
        return False
    _check_same_model(cfg, folder)
    return True


def _check_same_model(cfg: Train, folder: Path) -> None:
    """Refuse a command that would train another model than the one that started the run."""
    before, now = OmegaConf.load(folder / run_folder.CONFIG), OmegaConf.to_container(cfg)
    for key in keys(now):
        if key.partition(".")[0] in RESUMABLE and key not in FIXED:
            continue
        then, value = (OmegaConf.select(config, key) for config in (before, OmegaConf.create(now)))
        if then != value:
            raise InputError(
                f"the run in {folder} has {key}={then}, but this command has {key}={value}; give "
                "another run.dir, or repeat the command that started the run"
            )


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The furthest readable checkpoint of a run folder; warns about damaged ones.

    Raises:
        InputError: if all checkpoints are damaged.
    """
    found: list[tuple[int, Path, dict[str, Any]]] = []
    paths = [path for name in CHECKPOINTS if (path := run_folder.checkpoint(folder, name)).exists()]
    for path in paths:
        try:
            checkpoint = load_checkpoint(path)
        except InputError as damage:
            rank_zero_warn(f"{damage}; it is ignored")
        else:
            found.append((checkpoint["global_step"], path, checkpoint))
    if paths and not found:
        raise InputError(f"run.resume: no checkpoint of {folder} can be read; start a new run")
    if not found:
        return None
    _, path, checkpoint = max(found, key=lambda entry: (entry[0], paths.index(entry[1])))
    return path, checkpoint


def start_of(
    cfg: Train, folder: Path, fingerprint: str, processes: int, first_process: bool
) -> Start:
    """The point at which the run in the folder continues.

    All checks come first, so that a refusal leaves the run as it was. Then the folder is restored
    to its state at that point.

    Args:
        fingerprint: fingerprint of the studies.
        processes: present number of processes.

    Raises:
        InputError: if the studies differ or, within an epoch, the number of processes or the draws.
    """
    newest = newest_checkpoint(folder)
    start = Start()
    if newest is not None:
        path, checkpoint = newest
        check_same_studies(checkpoint, fingerprint)
        _check_processes(checkpoint, processes)
        _check_draws(checkpoint, cfg)
        epochs, batches = checkpoint["epochs"], checkpoint["batches"]
        start = Start(path, epochs, batches, checkpoint["global_step"])
        saving = checkpoint["callbacks"].get("Saving", {})
        if first_process and path.stem == "last" and saving.get("best_epoch") == epochs:
            keep_as_best(folder)  # the process may have been killed before this copy
    if first_process:
        run_folder.rewind_metrics(folder, start.step)
        for part in folder.glob("checkpoints/.*.part"):  # of a process killed while writing
            part.unlink()
    return start


def _check_processes(checkpoint: dict[str, Any], processes: int) -> None:
    before = len(checkpoint.get("windows") or [None] * processes)
    if before != processes:
        raise InputError(
            f"the checkpoint was written within an epoch by {before} process(es), each with other "
            f"images, but now there are {processes}; resume with {before} (trainer.devices, "
            "trainer.num_nodes), or remove checkpoints/step.ckpt to continue from the epoch's start"
        )


def _check_draws(checkpoint: dict[str, Any], cfg: Train) -> None:
    """Refuse other draws within an epoch, whose next batches hold the images not used yet."""
    if not checkpoint["batches"]:
        return
    before = OmegaConf.create(checkpoint["config"])
    for key in DRAWS:
        then, now = OmegaConf.select(before, key), OmegaConf.select(cfg, key)  # type: ignore[arg-type]
        if then != now:
            raise InputError(
                f"the checkpoint was written within an epoch with {key}={then}, but now {key}={now}"
                f"; set {key}={then}, or remove checkpoints/step.ckpt to continue from the epoch's "
                "start"
            )


def check_same_studies(checkpoint: dict[str, Any], fingerprint: str) -> None:
    """Refuse to continue with images, labels or splits that the checkpoint was not trained on."""
    if checkpoint["split_fingerprint"] != fingerprint:
        raise InputError(
            "the images, labels or splits are not those the checkpoint was trained with; "
            "restore data.root and the keys of data, or start a new run"
        )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this project: plain values and tensors, opened without running code.

    PyTorch does not compare a file with its checksums, so that a flipped bit would be trained on.

    Raises:
        InputError: if the file is missing, is no such checkpoint, or differs from its checksums.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    checkpoint = None
    with suppress(Exception), ZipFile(path) as packed:
        if packed.testzip() is None:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or "split_fingerprint" not in checkpoint:
        raise InputError(f"{path} is not a checkpoint of scripts/train.py, or is damaged")
    return checkpoint
