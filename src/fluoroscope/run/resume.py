"""Resume an interrupted run."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import torch
from pytorch_lightning.utilities import rank_zero_warn

from fluoroscope.config.loaded import differences, load, value_at
from fluoroscope.config.place_checks import check_checkpoint, no_checkpoint
from fluoroscope.config.run_checks import is_of_model
from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import restored
from fluoroscope.config.stored_yaml import short
from fluoroscope.config.train import Train
from fluoroscope.config.trust import check_code
from fluoroscope.errors import InputError, plural
from fluoroscope.run import run_folder
from fluoroscope.run.checkpoints import keep_as_best
from fluoroscope.run.metrics_file import lost_rows, rewind_metrics

CHECKPOINTS = ("step", "best", "last")  # of two at the same step, the later one in this tuple
# Entries of every checkpoint, with their types.
ENTRIES = {
    **dict.fromkeys(("config", "state_dict", "callbacks"), dict),
    **dict.fromkeys(("epochs", "batches", "global_step"), int),
    "split_fingerprint": str,
}
# Keys that decide which images the batches of an epoch hold.
DRAWS = (
    "data.batch_size",
    "data.sampler",
    "data.order_seed",
    "trainer.accumulate_grad_batches",
    "trainer.limit_train_batches",
    "trainer.overfit_batches",
)


class Start(NamedTuple):
    """Start of a fit: `checkpoint` is None at the start of the first epoch."""

    checkpoint: Path | None = None
    epochs: int = 0  # finished epochs
    batches: int = 0  # finished batches of the next epoch
    step: int = 0
    rows: int | None = None  # of metrics.csv before that step; None: not known
    best_is_last: bool = False  # best.ckpt is missing, and last.ckpt takes its place
    provenance: dict[str, Any] | None = None  # of the run that is continued

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


def start_of(cfg: Train, folder: Path, fingerprint: str, processes: int) -> Start:
    """The point at which the run in the folder continues. This only checks: `restore` writes.

    Args:
        fingerprint: fingerprint of the studies.
        processes: present number of processes.

    Raises:
        InputError: if the studies differ, fewer epochs are asked for than are finished, a file is
            damaged, or, within an epoch, the number of processes or the draws differ.
    """
    provenance = _provenance(folder)
    newest = newest_checkpoint(folder)
    if newest is None:
        return Start(provenance=provenance)
    path, checkpoint = newest
    check_same_studies(checkpoint, fingerprint)
    _check_same_config(checkpoint, cfg)
    _check_epochs(checkpoint, cfg.trainer.max_epochs)
    _check_processes(checkpoint, processes)
    _check_draws(checkpoint, cfg)
    rows, step = checkpoint.get("metrics_rows"), checkpoint["global_step"]
    if lost := lost_rows(folder / run_folder.METRICS, step, rows):
        rank_zero_warn(lost)
    finished = checkpoint["epochs"], checkpoint["batches"]
    best = _best_is_last(folder, checkpoint)
    return Start(path, *finished, step, rows, best, provenance)


def restore(folder: Path, start: Start) -> None:
    """Return the files of a run folder to their state at the start of the fit.

    The result goes first: without it, a run that is killed here can be resumed again.
    """
    for name in (run_folder.RESULT, run_folder.FAILED):
        (folder / name).unlink(missing_ok=True)
    if start.best_is_last:
        keep_as_best(folder)
    rewind_metrics(folder / run_folder.METRICS, start.step)
    for part in folder.glob("checkpoints/.*.part"):  # of a process killed while writing
        part.unlink()


def finished_result(folder: Path) -> dict[str, Any] | None:
    """The content of `result.json`, or None if the run has not finished.

    Raises:
        InputError: if the file is damaged.
    """
    path = folder / run_folder.RESULT
    if not path.exists():
        return None
    advice = "remove it, and repeat the command to score the run again"
    result = run_folder.read_json(path, advice)
    if not isinstance(result.get("val"), dict) or "auroc" not in result["val"]:
        raise InputError(f"{path} has no scores; {advice}")
    return result


def _provenance(folder: Path) -> dict[str, Any] | None:
    path = folder / run_folder.PROVENANCE
    if not path.exists():
        return None
    advice = "remove it to continue as a new run of W&B"
    provenance = run_folder.read_json(path, advice)
    if not isinstance(provenance.get("run_id"), str) or not provenance["run_id"]:
        raise InputError(f"{path} has no run_id; {advice}")
    return provenance


def _best_is_last(folder: Path, checkpoint: dict[str, Any]) -> bool:
    """Whether `last.ckpt` must take the place of `best.ckpt`.

    Raises:
        InputError: if `best.ckpt` is damaged and `last.ckpt` is not the same epoch.
    """
    best, last = (run_folder.checkpoint(folder, name) for name in ("best", "last"))
    saving = checkpoint["callbacks"].get("Saving", {})
    if not saving.get("best_epoch") or is_whole(best):
        return False
    same = not checkpoint["batches"] and saving["best_epoch"] == checkpoint["epochs"]
    if best.exists() and not same:
        raise InputError(
            f"{best} is damaged, and no other file has the best epoch, {saving['best_epoch']}; "
            "restore it from a copy, or remove it to choose the best of the last and later epochs"
        )
    if not same:
        rank_zero_warn(
            f"checkpoints/best.ckpt (epoch {saving['best_epoch']}) is missing; the best is chosen "
            "among the last and later epochs"
        )
    return is_whole(last)


def _check_epochs(checkpoint: dict[str, Any], max_epochs: int) -> None:
    finished, within = checkpoint["epochs"], checkpoint["batches"]
    if max_epochs < finished + bool(within):
        raise InputError(
            f"trainer.max_epochs={max_epochs}, but the run has finished {plural(finished, 'epoch')}"
            f"{' and a part of the next' if within else ''}; set at least "
            f"trainer.max_epochs={finished + bool(within)}, or start a new run"
        )


def _check_same_config(checkpoint: dict[str, Any], cfg: Train) -> None:
    """Refuse a `config.yaml` that was changed after the checkpoint was written."""
    before, now = checkpoint["config"], plain(cfg)
    for key in filter(is_of_model, differences(before, now)):
        if key not in ("backbone.weights", "backbone.file"):  # the checkpoint has the weights
            raise InputError(
                f"the checkpoint was trained with {key}={short(value_at(before, key))}, but "
                f"{run_folder.CONFIG} has {key}={short(value_at(now, key))}; restore this file"
            )


def check_weights(model: torch.nn.Module, checkpoint: dict[str, Any]) -> None:
    """Refuse weights that do not fit the model of the checkpoint's configuration.

    Raises:
        InputError: names the first weight that is lacking, too many, or of another shape.
    """
    own, stored = model.state_dict(), checkpoint["state_dict"]
    for name in {**own, **stored}:
        shapes = [tuple(getattr(state.get(name), "shape", ())) for state in (own, stored)]
        if name not in own or name not in stored or shapes[0] != shapes[1]:
            raise InputError(
                f"the checkpoint's weights do not fit its configuration ({short(name)} has the "
                f"shape {shapes[1]}, the model's {shapes[0]}); the configuration was changed, or "
                "is of another version"
            )


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
    before, now = checkpoint["config"], plain(cfg)
    for key in DRAWS:
        then, value = value_at(before, key), value_at(now, key)
        if then != value:
            raise InputError(
                f"the checkpoint was written within an epoch with {key}={then}, but now "
                f"{key}={value}; set {key}={then}, or remove checkpoints/step.ckpt to continue "
                "from the epoch's start"
            )


def check_same_studies(checkpoint: dict[str, Any], fingerprint: str) -> None:
    """Refuse to continue with images, labels or splits that the checkpoint was not trained on."""
    if checkpoint["split_fingerprint"] != fingerprint:
        raise InputError(
            "the images, labels or splits are not those the checkpoint was trained with; "
            "restore data.root and the keys of data, or start a new run"
        )


def is_whole(path: Path) -> bool:
    """Whether the file is a checkpoint that `load_checkpoint` reads."""
    with suppress(InputError):
        return bool(load_checkpoint(path))
    return False


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this project: plain values and tensors, opened without running code.

    Its configuration has the names of places that the run's `config.yaml` holds, if that is there.

    PyTorch does not compare a file with its checksums, so that a flipped bit would be trained on.

    Raises:
        InputError: if the file is missing, is no such checkpoint, differs from its checksums, or
            has a model with code that today's command does not trust.
    """
    check_checkpoint(path)
    checkpoint = None
    with suppress(Exception), ZipFile(path) as packed:
        if packed.testzip() is None:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or "split_fingerprint" not in checkpoint:
        raise no_checkpoint(path)
    for name, kind in ENTRIES.items():
        if not isinstance(checkpoint.get(name), kind):
            raise InputError(f"{path} is not a checkpoint of fluoroscope: {name} is lacking")
    stored = restored(checkpoint["config"], path)
    checkpoint["config"] = load(stored, Train, str(path)).announced()
    check_code(checkpoint["config"], path)
    return checkpoint
