"""Make the callbacks and loggers that today's command adds; `config.added` has checked their form.

Their modules are imported, and the arguments compared with the class, before any of them is made.
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import (
    Callback,
    Checkpoint,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from fluoroscope.config.added import RUN_DIR, TARGET, WORDS
from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import for_upload
from fluoroscope.errors import InputError, first_sentence, nearest, shown
from fluoroscope.model.own_scores import own_scores
from fluoroscope.own_code import imported
from fluoroscope.run.guards import PlainEntries, guard

KINDS = {"callbacks": Callback, "loggers": Logger}
BUILT_IN = {
    WandbLogger: "Weights & Biases is built in; use logger=wandb",
    StochasticWeightAveraging: "averages of weights are built in; use optimizer.ema_decay",
}
HYDRAS = (TARGET, "_convert_", "_recursive_")  # keys of an entry that are not arguments
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_added(cfg: Any) -> None:
    """Refuse entries of which no object can be made, as far as this shows without making one.

    Raises:
        InputError: a class that cannot be imported, is no callback or logger, or does not take the
            arguments; an environment variable that is not set; as `own_scores`.
    """
    own_scores(cfg.scores)
    for section, kind in KINDS.items():
        for name, entry in _entries(cfg, section).items():
            key = f"{WORDS[section]}.{name}"
            _check_kind(key, entry[TARGET], imported(key, entry[TARGET]), kind)
            _check_arguments(key, entry)
            _filled(key, entry, Path())


def make_callbacks(cfg: Any, folder: Path, own: Sequence[Callback] = ()) -> list[Callback]:
    """The callbacks, in their order; those that save checkpoints last, as Lightning has them.

    Args:
        folder: of the run.
        own: the callbacks of every run.

    Raises:
        InputError: a class refuses its arguments, or two callbacks would share one state.
    """
    made = {
        f"callbacks.{name}": _opened(f"callbacks.{name}", entry, folder)
        for name, entry in _entries(cfg, "callbacks").items()
    }
    states = {callback.state_key: "a callback of every run" for callback in own}
    for key, callback in made.items():
        _check_folder(key, callback, folder)
        if isinstance(callback, WeightAveraging) and any(
            isinstance(c, WeightAveraging) for c in own
        ):
            raise InputError(f"{key}: optimizer.ema_decay averages weights too; leave one out")
        twin = states.setdefault(callback.state_key, key)
        if twin != key and type(callback).state_dict is not Callback.state_dict:
            raise InputError(
                f"{twin} and {key} would share one state in a checkpoint; give their class a "
                "state_key that differs, or leave one out"
            )
    for key, callback in made.items():
        guard(callback, key, cfg.scores)
    found = sorted(made.values(), key=lambda callback: isinstance(callback, Checkpoint))
    return [*found, PlainEntries()] if found else []


def make_logger(cfg: Any, name: str, folder: Path) -> Logger:
    """A logger that has got the configuration, without text that may name a person or a place.

    Raises:
        InputError: it cannot be opened.
    """
    key, entry = f"logger.{name}", cfg.loggers[name]
    logger = _opened(key, plain(entry), folder)
    if isinstance(logger, CSVLogger) and Path(logger.log_dir).resolve() == folder.resolve():
        raise InputError(
            f"{key}.save_dir: metrics.csv of this folder is the run's own; set another folder, "
            f"such as {key}.save_dir='${{run.dir}}/more'"
        )
    try:
        logger.log_hyperparams(for_upload(plain(cfg), ("run.name", "run.experiment")))
    except Exception as error:
        raise InputError(f"{key} cannot be opened ({_reason(error)}); see its arguments") from None
    return logger


def _entries(cfg: Any, section: str) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in plain(cfg[section]).items() if entry is not None}


def _check_kind(key: str, path: str, found: Any, kind: type) -> None:
    if isinstance(found, type) and issubclass(found, kind):
        for built_in, instead in BUILT_IN.items():
            if issubclass(found, built_in):
                raise InputError(f"{key}: {instead}")
        return
    other = any(c.__module__.startswith("lightning.") for c in getattr(found, "__mro__", ()))
    base = f"pytorch_lightning.{kind.__module__.split('.')[1]}.{kind.__name__}"
    is_ = "another class" if isinstance(found, type) else f"a {type(found).__name__}"
    is_ = "one of the package lightning" if other else is_
    raise InputError(f"{key}: {path} must be a class derived from {base}; it is {is_}")


def _check_arguments(key: str, node: Any) -> None:
    """Refuse arguments that a class does not take, and their lack, in all entries of a node."""
    for name, part in node.items() if isinstance(node, dict) else ():
        _check_arguments(f"{key}.{name}", part)
    for part in node if isinstance(node, list) else ():
        _check_arguments(key, part)
    if isinstance(node, dict) and TARGET in node:
        _check_signature(key, node, imported(key, str(node[TARGET])))


def _check_signature(key: str, entry: Mapping[str, Any], found: Callable[..., Any]) -> None:
    args = {name: value for name, value in entry.items() if name not in HYDRAS}
    listed = args.pop("_args_", [])
    try:
        signature = inspect.signature(found)
    except TypeError:
        raise InputError(f"{key}: {entry[TARGET]} is no class or function; correct it") from None
    except ValueError:  # of a class written in C
        return
    known = [p.name for p in signature.parameters.values() if p.kind in BY_NAME]
    any_name = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())
    for name in args if not any_name else ():
        if name not in known:
            raise InputError(
                f"{key}.{name}: {entry[TARGET]} does not take it (its arguments: "
                f"{', '.join(known) or 'none'}){nearest(name, known)}"
            )
    try:
        signature.bind(*listed, **args)
    except TypeError as error:
        raise InputError(
            f"{key}: {entry[TARGET]} cannot be made ({error}); add the argument to the entry"
        ) from None


def _filled(key: str, node: Any, folder: Path) -> Any:
    """The entry with the run's folder and environment variables in place of their names."""

    def value(found: re.Match[str]) -> str:
        if found[1] == RUN_DIR:
            return str(folder)
        if found[1] not in os.environ:
            raise InputError(f"{key}: the environment variable {found[1]} is not set; set it")
        return os.environ[found[1]]

    if isinstance(node, dict):
        return {name: _filled(f"{key}.{name}", part, folder) for name, part in node.items()}
    if isinstance(node, list):
        return [_filled(key, part, folder) for part in node]
    return re.sub(r"\$\((\w+)\)", value, node) if isinstance(node, str) else node


def _opened(key: str, entry: Mapping[str, Any], folder: Path) -> Any:
    return _made(key, _filled(key, entry, folder))


def _made(key: str, node: Any) -> Any:
    """A node with an object in place of each entry that has a `_target_`."""
    if isinstance(node, list):
        return [_made(key, part) for part in node]
    if not isinstance(node, dict):
        return node
    args = {n: _made(f"{key}.{n}", part) for n, part in node.items() if n not in HYDRAS}
    if TARGET not in node:
        return args
    found = imported(key, node[TARGET])
    try:
        return found(*args.pop("_args_", []), **args)
    except (Exception, SystemExit) as error:
        raise InputError(f"{key}={shown(node[TARGET])}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it exits"
    return f"{type(error).__name__}: {first_sentence(error)}"


def _check_folder(key: str, callback: Callback, folder: Path) -> None:
    """Keep another's checkpoints apart from those that a resumed run reads."""
    if isinstance(callback, ModelCheckpoint):
        own, given = (folder / "checkpoints").resolve(), callback.dirpath
        if given is None or Path(given).resolve() == own:
            raise InputError(
                f"{key}.dirpath: the run's own checkpoints are in its folder checkpoints; set "
                f"another folder, such as {key}.dirpath='${{run.dir}}/more'"
            )
