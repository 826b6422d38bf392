"""Configurations that a run stored, in its folder or in a checkpoint.

They may be a stranger's, so they are data: no text in them is resolved, and they do not choose
where results go (`OF_TODAY`). They may be of another version, with fewer or other keys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, DictConfig, OmegaConf

from fluoroscope import sources
from fluoroscope.config import CONF
from fluoroscope.config.schema import check, plain
from fluoroscope.config.stored_yaml import check_plain, read_yaml, short
from fluoroscope.errors import InputError, shown
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.own_code import is_path, is_trusted

# A run that lacks a key is older than the key, and gets the present default. Here are the keys
# whose default would change what such a run did, with the value that does not.
OLDER: dict[str, Any] = {
    "data.dicom_patients": False,
    "data.follow_links": True,
    "data.on_duplicate": "keep",
    "head.norm_momentum": 0.01,
    "run.dir": "outputs",  # without effect: a resumed run stays in its folder
}
# Keys that no longer exist, with the default they had, which changes nothing.
GONE: dict[str, Any] = {}
# Where a resumed run is uploaded, and whether with names: today's command and `conf/` decide.
OF_TODAY = ("logger.project", "logger.entity", "logger.group", "logger.share", "run.name_images")

SHOWN_KEYS = 12  # in one line


class Loaded(NamedTuple):
    """A stored configuration with exactly the keys of this version.

    Attributes:
        config: nested plain values.
        added: the keys that were lacking, by dotted name, with the values that they got.
        ignored: keys that no longer exist.
        place: the file, for messages.
    """

    config: dict[str, Any]
    added: dict[str, Any]
    ignored: dict[str, Any]
    place: str

    @property
    def lines(self) -> tuple[str, ...]:
        """A line on the keys added, and one on the keys ignored."""
        about = {"is older than": self.added, "has keys that no longer exist:": self.ignored}
        return tuple(f"the configuration {what} {_pairs(k)}" for what, k in about.items() if k)

    def announced(self) -> dict[str, Any]:
        """The configuration; prints its lines, once in a process."""
        for line in self.lines if is_first_process() else ():
            _print_once(f"{self.place}: {line}")
        return self.config


def load_file(file: Path, keys: Any, checked: bool = True) -> Loaded:
    """As `load`, from the `config.yaml` of a run."""
    return load(read_yaml(file), keys, str(file), checked)


def load(stored: Any, keys: Any, place: str, checked: bool = True) -> Loaded:
    """Complete a stored configuration by the keys that are newer. No code that it names is run.

    Args:
        stored: nested values.
        keys: the dataclass `Train`: its fields are the keys of this version.
        place: file that holds the values, for messages.
        checked: check each value too, which takes 0.1 s.

    Raises:
        InputError: if it is not a mapping of plain values, lacks a key that has no default, or has
            a key that this version does not know and that may have had an effect.
    """
    if not isinstance(stored, dict) or "source" not in _section(stored, "data"):
        raise InputError(f"{place} is not the configuration of a run: it has no data.source")
    check_plain(place, stored)
    with _named(place):
        source = stored["data"]["source"]
        typed = _typed(keys, source)
        known, unknown = _divided(stored, typed)
        own = {k: unknown.pop(k) for k in [*unknown] if _is_strange(source) and k[:5] == "data."}
        for key, value in unknown.items():
            _check_gone(key, value)
        keys_now = dict(_declared(typed))
        added = {k: _before(k, source, own) for k, own in keys_now.items() if k not in known}
        config = _resolved(_nested({key: (known | added)[key] for key in keys_now}), added)
        if checked:
            config = plain(check(OmegaConf.create(config), typed, whole=False))
        config["data"] |= _nested(own).get("data", {})
    return Loaded(config, {key: value_at(config, key) for key in added}, unknown, place)


def _section(stored: dict[str, Any], name: str) -> dict[str, Any]:
    section = stored.get(name)
    return section if isinstance(section, dict) else {}


def known_part(stored: dict[str, Any], keys: Any) -> dict[str, Any]:
    """The keys of this version among those of a configuration that other tools add keys to."""
    source = str(_section(stored, "data").get("source"))
    return _nested(_divided(stored, _typed(keys, source))[0])


def _is_strange(source: Any) -> bool:
    """Whether a source is code that nobody trusts: its own keys are then not checked."""
    return is_path(source) and not is_trusted(source)


def _typed(keys: Any, source: Any) -> Any:
    return keys() if _is_strange(source) else keys(data=sources.keys_of(source)())


def _resolved(config: dict[str, Any], added: dict[str, Any]) -> Any:
    """Resolve the defaults among the values, such as ${head.activation}-s${seed}."""
    if "${" not in str(added):
        return config
    return OmegaConf.to_container(OmegaConf.create(config), resolve=True)


def _before(key: str, source: str, own: Any) -> Any:
    """The value of a key for a run that is older than the key.

    Args:
        own: the default that the key's class gives.
    """
    value = OLDER[key] if key in OLDER else value_at(_defaults(source), key, own)
    if value == MISSING and not key.startswith("data."):  # which a command can set
        raise InputError(f"{key} is lacking and has no default; write its value there")
    return value


def decide_today(before: dict[str, Any], cfg: DictConfig) -> DictConfig:
    """The configuration of a run to resume, in which today's command decides where results go.

    Only `logger.mode=off` and `offline` stay as they were, unless an override changes them.

    Args:
        before: of the run.
        cfg: composed for today's command.
    """
    config = OmegaConf.create(before)
    today: Any = OmegaConf.to_container(cfg)  # unresolved: a group may name the run's data source
    for key in OF_TODAY:
        OmegaConf.update(config, key, value_at(today, key))
    if before["logger"]["mode"] in ("auto", "online"):
        config.logger.mode = today["logger"]["mode"]
    for key in ("estimate", "print_config"):  # what this command does
        config.run[key] = today["run"][key]
    for key in ("callbacks", "loggers"):  # stored code is not run
        config[key] = today[key]
    return config


def announce_today(before: dict[str, Any], config: DictConfig, place: str) -> None:
    """Print the keys of `OF_TODAY` that a resumed run had otherwise."""
    keys = [key for key in OF_TODAY if not (config.logger.mode == "off" and "logger" in key)]
    now = {key: plain(OmegaConf.select(config, key)) for key in keys}
    other = {key: value_at(before, key) for key in keys if value_at(before, key) != now[key]}
    if other and is_first_process():
        _print_once(
            f"this command decides {_pairs({key: now[key] for key in other})}; to use the values "
            f"of {place}, add {_pairs(other)}"
        )


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Start refusals with the file's name."""
    try:
        yield
    except InputError as refusal:
        raise InputError(f"{place}: {refusal}") from None


def _check_gone(key: str, value: Any) -> None:
    if key not in GONE or GONE[key] != value:
        raise InputError(
            f"this version has no key {short(key)} (there: {short(value)}); remove it if it had no "
            "effect, or use the version that wrote it"
        )


def _divided(stored: dict[str, Any], typed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values by dotted name: of the keys of this version, and of other keys."""
    known: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in stored.items():
        if name not in typed.__dataclass_fields__:
            unknown |= _leaves(value, name)
        elif not is_dataclass(section := getattr(typed, name)):
            known[name] = value
        elif isinstance(value, dict):
            for part, inner in zip((known, unknown), _divided(value, section), strict=True):
                part |= {f"{name}.{key}": of_key for key, of_key in inner.items()}
        else:
            raise InputError(f"{name} must be a section with keys; it is {short(value)}")
    return known, unknown


def _leaves(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {key: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _leaves(inner, f"{key}.{name}")
    return found


def _declared(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the keys of this version, with the defaults that their class gives."""
    for entry in fields(section):
        key, value = f"{prefix}{entry.name}", getattr(section, entry.name)
        if is_dataclass(value):
            yield from _declared(value, f"{key}.")
        else:
            yield key, value


@cache
def _defaults(source: str) -> dict[str, Any]:
    """The keys of `conf/train.yaml` with its groups, for this source."""
    config = read_yaml(CONF / "train.yaml")
    groups = {
        "data": f"data/{'own' if is_path(source) else source}",
        "trainer": "trainer/auto",
        "logger": "logger/wandb",
    }
    groups |= {"optimizer": "optimizer/adamw", "schedule": "schedule/cosine"}
    for section, name in groups.items():
        config[section] = config.get(section, {}) | read_yaml(CONF / f"{name}.yaml")
    return config


def differences(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the keys that differ between two nested configurations.

    >>> list(differences({"seed": 1, "head": {"width": 8}}, {"seed": 1, "head": {"width": 9}}))
    ['head.width']
    """
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}"


def value_at(config: dict[str, Any], key: str, otherwise: Any = None) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            return otherwise
        value = value[name]
    return value


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Sections from dotted names."""
    config: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        section = config
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return config


def _pairs(values: dict[str, Any]) -> str:
    words = {k: v if isinstance(v, str) else shown(v) for k, v in values.items()}
    pairs = [f"{short(key)}={short(word)}" for key, word in words.items()]
    more = len(pairs) - SHOWN_KEYS
    return " ".join(pairs[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


@cache
def _print_once(line: str) -> None:
    """Print a line; a command checks its configuration twice."""
    print(line)
