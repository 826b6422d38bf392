"""How a run ended, read from its folder without heavy imports.

A finished run has `result.json`, a failed one `failed.json`. A run that is still running, or that
was stopped and can be resumed, has neither.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fluoroscope.atomic_write import write_atomically
from fluoroscope.errors import BAD_INPUT, CRASH, InputError
from fluoroscope.launch.error_template import error_template
from fluoroscope.launch.refusals import settled

CONFIG, RESULT, FAILED = "config.yaml", "result.json", "failed.json"
AUTO = "auto"  # of run.resume: the run in run.dir, if there is one


def checkpoint(folder: Path, name: str) -> Path:
    """Path of a run's checkpoint `last`, `best` or `step`."""
    return folder / "checkpoints" / f"{name}.ckpt"


def mark_failed(folder: Path, error: BaseException) -> None:
    """Write `failed.json`: the error without its values, and the exit code that it means."""
    failed = {
        "error": error_template(error),
        "exit_code": BAD_INPUT if isinstance(error, InputError) else CRASH,
    }
    # On a full disk the error itself is what matters.
    with suppress(OSError), write_atomically(folder / FAILED) as part:
        part.write_text(json.dumps(failed, indent=2) + "\n")


@contextmanager
def failure_marked(folder: Path, has_begun: Callable[[], bool]) -> Iterator[None]:
    """Mark a run that ends with an error, but not one that was refused before it began, or one
    that was stopped and can be resumed. Of several processes, see `launch.refusals`.
    """
    try:
        yield
    except Exception as error:
        ended = settled(error)
        if has_begun():
            mark_failed(folder, ended)
        raise ended  # noqa: B904  mostly the error itself


def check_free(folder: Path, can_resume: bool = True) -> None:
    """Refuse a folder that holds a run.

    Args:
        can_resume: whether the command can resume a run.

    Raises:
        InputError: the folder holds a run.
    """
    if any((folder / name).exists() for name in (CONFIG, RESULT)):
        other = f"continue it with run.resume={folder}, or " if can_resume else ""
        raise InputError(f"{folder} already holds a run; {other}give another run.dir")


def failure(folder: Path) -> dict[str, Any] | None:
    """The content of `failed.json`, or None if it is missing or damaged."""
    try:
        failed = json.loads((folder / FAILED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    types = {"error": str, "exit_code": int}
    whole = isinstance(failed, dict) and all(isinstance(failed.get(k), types[k]) for k in types)
    return failed if whole else None
