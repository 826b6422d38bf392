"""One run of a command, in this process or in one that a launcher started."""

import importlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluoroscope.errors import BAD_INPUT, InputError
from fluoroscope.launch import refusals, stopping
from fluoroscope.launch.process_setup import is_first_process, quiet_lightning
from fluoroscope.launch.run_status import AUTO, CONFIG, FAILED, mark_failed
from fluoroscope.launch.stopping import Stopped
from fluoroscope.own_code import trusting


def register_resolvers() -> None:
    """The resolvers `${identity:}`, `${place:RESUME,DIR}` and `${names:MAPPING}` of `conf/`."""
    from omegaconf import OmegaConf

    from fluoroscope.launch.run_id import fix_identity

    def place(resume: str | None, new: str) -> str:
        return new if resume in (None, AUTO) else resume

    OmegaConf.register_new_resolver("identity", fix_identity, replace=True)
    OmegaConf.register_new_resolver("place", place, replace=True)
    OmegaConf.register_new_resolver("names", ",".join, replace=True)


def run(
    cfg: Any, entry: str, check: Callable[..., Any] | None, folder: Path, printed: list[str]
) -> Any:
    """Start one run; in a sweep an error is printed and marked in the run's folder, not raised.

    Returns:
        The entry's return value, which a search maximises; None if the run failed.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from fluoroscope.config.trust import trusted_today

    register_resolvers()  # a process that a launcher started has none yet
    hydra = HydraConfig.get()
    several = hydra.mode == RunMode.MULTIRUN
    if several and {path.name for path in folder.iterdir()} == {CONFIG, FAILED}:
        for name in (CONFIG, FAILED):  # it was refused before it started, and is tried again
            (folder / name).unlink()
    new = not any(folder.iterdir())
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        with trusting(trusted_today(cfg)):
            checked = cfg if check is None else check(cfg, list(hydra.overrides.task))
            if OmegaConf.select(cfg, "run.print_config") and is_first_process():
                shown = checked if OmegaConf.is_config(checked) else cfg
                print(OmegaConf.to_yaml(shown, resolve=True))
            main = imported(entry)
            quiet_lightning()
            warnings.formatwarning = _shorten(warnings.formatwarning)
            return main(checked)
    except Exception as error:
        if stopping.WATCH.stop is not None:  # a library has turned it into its own error
            raise stopping.WATCH.stop from None
        ended = refusals.settled(error)
        told = refusals.sentence(ended)
        if not several and not isinstance(ended, InputError):
            raise
        if told not in printed:  # Hydra would print its own line too
            print_error(ended)
        printed.append(told)
        if several and new:
            _mark(folder, cfg, ended)
    return None


def not_written(error: OSError) -> InputError:
    """The refusal of a run folder that cannot be made, or of an output that cannot be written."""
    if error.filename is None:
        return InputError(f"the output cannot be written ({error.strerror})")
    return InputError(f"run.dir: cannot make the run folder {error.filename} ({error.strerror})")


@contextmanager
def quiet_end() -> Iterator[None]:
    """End a command that a signal has stopped with one line, the signal's code and no traceback.

    Lightning kills the first process if one that it has started ends with a failure code.
    """
    stopping.WATCH.stop = None
    refusals.listen()
    by_lightning = stopping.is_started_by_lightning()
    try:
        yield
    except BaseException as error:
        stop = error if isinstance(error, Stopped) else stopping.WATCH.stop
        if stop is None:
            if by_lightning and isinstance(error, SystemExit) and error.code == BAD_INPUT:
                refusals.tell_first_process()
                raise SystemExit(0) from None
            raise
        if not stop.told:
            stopping.print_stop(stop.signum)
        raise SystemExit(0 if by_lightning else stop.code) from None


def _mark(folder: Path, cfg: Any, error: Exception) -> None:
    """Write the configuration and the error of a run that failed before it could."""
    from omegaconf import OmegaConf

    from fluoroscope.config.added import recordable

    if not (folder / CONFIG).exists():
        cfg = recordable(cfg)
        (folder / CONFIG).write_text(OmegaConf.to_yaml(cfg, resolve=True))
    if not (folder / FAILED).exists():
        mark_failed(folder, error)


def _shorten(format_warning: Callable[..., str]) -> Callable[..., str]:
    """Print this project's own warnings without the line of code that raised them."""

    def shortened(message: Any, category: Any, filename: str, *rest: Any) -> str:
        if Path(filename).is_relative_to(Path(__file__).parents[1]):
            return f"fluoroscope: warning: {message}\n"
        return format_warning(message, category, filename, *rest)

    return shortened


def imported(place: str) -> Callable[..., Any]:
    module, function = place.split(":")
    return getattr(importlib.import_module(module), function)


def print_error(error: Exception) -> None:
    """One sentence for bad input, from one process; the traceback for any other error."""
    if not isinstance(error, InputError):
        traceback.print_exception(error)
    elif not error.told:
        print(f"fluoroscope: {refusals.sentence(error)}", file=sys.stderr)
