"""Refuse files and folders that do not exist, before anything heavy is imported."""

import os
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from fluoroscope import sources
from fluoroscope.config.schema import plain
from fluoroscope.errors import InputError, NotHereError, check_file, shown
from fluoroscope.launch import run_status
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.launch.run_id import is_restarted


def check_places(cfg: Any) -> None:
    """Check the files and folders that the keys of a run name.

    Raises:
        NotHereError: one does not exist, or is not what its key needs.
    """
    try:
        sources.check_place(plain(cfg.data))
        resumed = cfg.run.resume is not None or is_restarted(os.environ)
        if cfg.backbone.weights == "file" and not resumed:  # else its checkpoint has the weights
            check_file("backbone.file", Path(cfg.backbone.file))
    except InputError as error:
        raise NotHereError(str(error)) from None


def check_new_folder(folder: str, can_resume: bool = True) -> None:
    """Refuse a run folder that holds a run; only the first process of a new run can tell."""
    if is_first_process() and not is_restarted(os.environ):
        run_status.check_free(Path(folder), can_resume)


def check_exists(key: str, place: str | Path) -> None:
    """Refuse what is neither a file nor a folder; a pipe would wait for its writer."""
    path = Path(place)
    if not path.exists():
        raise InputError(f"{key}: there is no file or folder {place}")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{key}: {place} is a pipe or a device; give a file or a folder")


def check_writable(key: str, file: Path) -> None:
    """Refuse a file to write that is a folder, or whose folder is missing or cannot be written."""
    if file.is_dir():
        raise InputError(f"{key}: {file} is a folder; add the name of a file")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{key}: there is no folder {folder}; make it, or choose another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{key}: {folder} cannot be written; choose a file elsewhere")


def check_new_file(key: str, file: Path) -> None:
    """Refuse a file that exists, or that `check_writable` refuses."""
    check_writable(key, file)
    if file.exists():
        raise InputError(f"{key}: {file} exists; remove it, or choose another file")


def check_checkpoint(path: Path) -> None:
    """Refuse a file that is missing or cannot be a checkpoint; its content is not read.

    Raises:
        NotHereError: there is no such file, or it is not the archive that PyTorch writes.
    """
    if not path.is_file():
        raise NotHereError(f"there is no checkpoint {path}")
    if not is_zipfile(path):
        raise no_checkpoint(path)


def check_checkpoints(key: str, value: Any) -> None:
    """Check `checkpoint`.

    Raises:
        InputError: the value is neither text nor a list of different texts.
    """
    listed = value if isinstance(value, list) else [value]
    if not (listed and all(isinstance(place, str) and place for place in listed)):
        raise InputError(
            f"{key} must be a run folder or a checkpoint, or a list of them written "
            f"'{key}=[A,B]'; got {shown(value)}"
        )
    places = [str(Path(place).absolute()) for place in listed]
    if repeated := [place for place in listed if places.count(str(Path(place).absolute())) > 1]:
        raise InputError(f"{key} lists {repeated[0]} more than once; list each model once")


def checkpoints_of(cfg: Any) -> list[str]:
    """The models of the key `checkpoint`: those of a list, or the only one."""
    given = plain(cfg.checkpoint)
    return given if isinstance(given, list) else [given]


def find_checkpoint(place: str | Path) -> Path:
    """The checkpoint of a finished run, the best before the last; or the file itself.

    Raises:
        NotHereError: there is none, or the run of the folder has not finished.
    """
    path = Path(place)
    if not path.is_dir():
        check_checkpoint(path)
        return path
    found = [run_status.checkpoint(path, name) for name in ("best", "last")]
    existing = next((file for file in found if file.is_file()), None)
    if existing is None:
        raise NotHereError(
            f"{path} is not the folder of a trained run: it has no checkpoints/best.ckpt; give the "
            "folder of a finished run, or a checkpoint"
        )
    if not (path / run_status.RESULT).is_file():
        raise NotHereError(
            f"{path}: the run has not finished (it has no {run_status.RESULT}); continue it with "
            f"run.resume={path}, or give {existing} to use it as it is"
        )
    check_checkpoint(existing)
    return existing


def no_checkpoint(path: Path) -> NotHereError:
    return NotHereError(f"{path} is not a checkpoint of fluoroscope, or is damaged")
