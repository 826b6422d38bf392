"""Resume an interrupted run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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

CHECKPOINTS = ("step", "best", "last")  # of two that are equally far the later one
# What decides which images the batches of an epoch hold.
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
    epochs: int = 0  # finished ones
    batches: int = 0  # of the next one
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
    """Whether the run in the folder is to be continued: because a resume names it, or because
    `auto` finds a run there. A job that SLURM starts again always resumes.

    Raises:
        InputError: `auto` finds a run of another model.
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
    """The command was given again, so all that the run's model depends on must be the same."""
    before, now = OmegaConf.load(folder / run_folder.CONFIG), OmegaConf.to_container(cfg)
    for key in keys(now):
        if key.partition(".")[0] in RESUMABLE and key not in FIXED:
            continue
        then, value = (OmegaConf.select(config, key) for config in (before, OmegaConf.create(now)))
        if then != value:
            raise InputError(
                f"the run in {folder} has {key}={then}, this command {key}={value}; give another "
                "run.dir, or the command that started the run"
            )


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint of a run folder that is furthest, passing over damaged ones and naming them.

    Raises:
        InputError: there are some, and all are damaged.
    """
    found: list[tuple[int, Path, dict[str, Any]]] = []
    paths = [path for name in CHECKPOINTS if (path := run_folder.checkpoint(folder, name)).exists()]
    for path in paths:
        try:
            checkpoint = load_checkpoint(path)
        except InputError as damage:
            rank_zero_warn(f"{damage}; it was passed over")
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
    """The place at which the run in the folder continues.

    It comes before anything is written: a refusal must leave the run as it was. Then the folder is
    made what it was at that moment.

    Args:
        fingerprint: of the studies.
        processes: that there are now.

    Raises:
        InputError: other studies, or within an epoch another number of processes or other draws.
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
            keep_as_best(folder)  # a kill may have come between the two
    if first_process:
        run_folder.rewind_metrics(folder, start.step)
        for part in folder.glob("checkpoints/.*.part"):  # of a write that a kill cut off
            part.unlink()
    return start


def _check_processes(checkpoint: dict[str, Any], processes: int) -> None:
    before = len(checkpoint.get("windows") or [None] * processes)
    if before != processes:
        raise InputError(
            f"the checkpoint was written within an epoch by {before} processes, each with images "
            f"of its own, and now there are {processes}; resume with as many (trainer.devices, "
            "trainer.num_nodes), or remove checkpoints/step.ckpt to continue from the epoch's start"
        )


def _check_draws(checkpoint: dict[str, Any], cfg: Train) -> None:
    """Within an epoch the images that come next are those that its other batches have left."""
    if not checkpoint["batches"]:
        return
    before = OmegaConf.create(checkpoint["config"])
    for key in DRAWS:
        then, now = OmegaConf.select(before, key), OmegaConf.select(cfg, key)  # type: ignore[arg-type]
        if then != now:
            raise InputError(
                f"the checkpoint was written within an epoch of {key}={then}, and now it is {now}; "
                "leave it, or remove checkpoints/step.ckpt to continue from the epoch's start"
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

    Raises:
        InputError: no such file, or one of another kind.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        checkpoint = None
    if not isinstance(checkpoint, dict) or "split_fingerprint" not in checkpoint:
        raise InputError(f"{path} is not a checkpoint of scripts/train.py, or is damaged")
    return checkpoint
