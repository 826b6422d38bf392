"""Callbacks and loggers that a command adds by `_target_`, the import path of their class.

Only today's command can name them: the command line, `conf/`, and the folder of `--config-dir`. A
stored configuration keeps them as a record, and nothing is made from it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fluoroscope.config.logger_keys import is_added_logger
from fluoroscope.config.stored_yaml import short
from fluoroscope.errors import InputError, shown
from fluoroscope.own_code import check_findable

TARGET = "_target_"
# The sections of a checked configuration, and how a command adds to them.
WORDS = {"callbacks": "callbacks", "loggers": "logger"}
# Text in these interpolations is known, or may be told, only where an object is made.
LATER = re.compile(r"\$\{\s*(?:oc\.env:\s*(\w+)|(run\.dir))\s*\}")
RUN_DIR = "RUN_DIR"
IN_ADDRESS = re.compile(r"://[^/\s]*:[^/\s]+@")  # a password
SECRET = re.compile(r"api_?key|access_?key|secret|password|passwd|token$", re.IGNORECASE)


def entries() -> Any:
    """A dataclass field of entries by name; a run that is older than the key has none."""
    return field(default_factory=dict, metadata={"rule": check_entries})


def check_entries(key: str, value: Any) -> None:
    """Check that a section holds entries by name; those of a stored run may be of any kind.

    Raises:
        InputError: it is not a mapping.
    """
    if not isinstance(value, dict):
        raise InputError(f"{key} must be a mapping of names to entries; got {shown(value)}")


def with_added(cfg: DictConfig) -> DictConfig:
    """The configuration with today's loggers in `loggers`, and all entries as plain values.

    The run's folder and environment variables are written `$(RUN_DIR)` and `$(NAME)`, so that a
    stored configuration holds no secret; `run.added` replaces them. A second call changes nothing.

    Raises:
        InputError: an entry is not a mapping with the import path of a class, or holds a secret.
    """
    config: Any = OmegaConf.to_container(cfg)
    logger = config.get("logger")
    own = {k: v for k, v in logger.items() if is_added_logger(k, v)} if logger else {}
    config["loggers"] = {**(config.get("loggers") or {}), **own}
    config["logger"] = {k: v for k, v in (logger or {}).items() if k not in own}
    config["callbacks"] = config.get("callbacks") or {}
    for section, word in WORDS.items():
        check_entries(section, config[section])
        config[section] = _for_later(config[section])
        for place, text in _texts(config[section], word):
            if "oc.env" in text:  # its value would be stored
                raise InputError(
                    f"{place}: write an environment variable as ${{oc.env:NAME}} alone"
                )
    changed = OmegaConf.create(config)
    for section, word in WORDS.items():
        plain = {name: _plain(f"{word}.{name}", changed[section], name) for name in config[section]}
        OmegaConf.update(changed, section, plain, merge=False)
    return changed


def recordable(cfg: DictConfig) -> DictConfig:
    """As `with_added`; without callbacks and loggers if these are refused, as for a secret."""
    try:
        return with_added(cfg)
    except InputError:
        return OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k not in {*WORDS, "logger"}])


def check_repeated(before: Mapping[str, Any], today: Any, place: Path) -> None:
    """Refuse to resume a run without a callback or logger that it had.

    Args:
        before: configuration of the run.
        today: that of this command.
        place: the file of the former.

    Raises:
        InputError: names the entry, and how to repeat it or to leave it out.
    """
    for section, word in WORDS.items():
        for name, entry in before[section].items():
            if entry is not None and name not in today[section]:
                made = entry.get(TARGET) if isinstance(entry, dict) else None
                key = short(f"{word}.{name}")
                raise InputError(
                    f"{place}: the run has {key}" + f" ({short(made)})" * (made is not None) + ", "
                    "and code that a run names is not used; add the words that added it, such as "
                    f"'+{key}={{_target_: ...}}', or +{key}=null to continue without it"
                )


def is_of_added(key: str, cfg: Any) -> bool:
    """Whether an override concerns an added callback or logger.

    Args:
        cfg: configuration from `with_added`.
    """
    section, _, rest = key.partition(".")
    return section in WORDS or (section == "logger" and rest.partition(".")[0] in cfg["loggers"])


def _for_later(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _for_later(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_for_later(value) for value in node]
    if isinstance(node, str):
        return LATER.sub(lambda found: f"$({found[1] or RUN_DIR})", node)
    return node


def _plain(key: str, section: DictConfig, name: str) -> Any:
    """The entry as plain values, checked as far as is possible without running code."""
    try:
        entry: Any = section[name]
        if OmegaConf.is_config(entry):
            entry = OmegaConf.to_container(entry, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{key}: {str(error).splitlines()[0]}") from None
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get(TARGET), str):
        raise InputError(
            f"{key} must be a mapping with the import path of a class, written "
            f"'+{key}={{_target_: mypkg.Mine, every: 10}}'; got {shown(entry)}"
        )
    check_findable(f"{key}.{TARGET}", entry[TARGET])
    for place, text in _texts(entry, key):
        name = place.rpartition(".")[2]
        is_count = name.endswith("token") and text.isdecimal()
        is_secret = (SECRET.search(name) and not is_count) or IN_ADDRESS.search(text)
        if is_secret and "$(" not in text:
            raise InputError(
                f"{place} would be stored with the run; put it into an environment variable, and "
                f"write {place}='${{oc.env:NAME}}'"
            )
    return entry


def _texts(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """All text and numbers in a node, with the dotted name."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}")
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif node is not None and not isinstance(node, bool):
        yield key, str(node)
