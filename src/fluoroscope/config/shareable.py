"""The part of a configuration that may leave the run's folder: in a checkpoint and to W&B.

Text can name a person or a place: a folder, a file, a column, a pattern, a run. A value stays if
- it is a number, true, false or null,
- it is one of the key's choices, or its default in `conf/`,
- the key is in `MODEL`.
All other text is left out, also that of a key that is added later.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fluoroscope import sources
from fluoroscope.config import CONF
from fluoroscope.config.schema import plain
from fluoroscope.config.stored_yaml import read_yaml
from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import CONFIG

LEFT_OUT = "(left out)"
# Keys whose text describes the model or is checked by a rule. Labels name the model's outputs.
MODEL = (
    *("data.source", "data.labels", "data.label_map", "data.views", "data.fold", "data.augment"),
    *("backbone.name", "backbone.args", "backbone.contract"),
    *("head.activation", "head.activation_args"),
    *("head.bias_init", "loss.pos_weight", "diagnostics.layers", "trainer.devices", "run.remedy"),
    *("optimizer.name", "optimizer.args"),
)
LABELS = ("data.labels", "data.label_map")  # may have a slash, as Nodule/Mass


def for_checkpoint(cfg: Any) -> dict[str, Any]:
    """A run's configuration with `LEFT_OUT` in place of text that may name a person or a place."""

    def replaced(value: Any) -> Any:
        return [LEFT_OUT] if isinstance(value, list) else LEFT_OUT

    return _walk(plain(cfg), replaced)


def for_upload(config: Mapping[str, Any], kept: tuple[str, ...]) -> dict[str, Any]:
    """A nested configuration without text that may name a person or a place.

    Args:
        kept: further sections and keys whose text stays.
    """
    return _walk(config, None, kept)


def is_shareable(key: str, value: Any) -> bool:
    """Whether the value of a dotted key cannot name a person or a place."""
    section, _, name = key.partition(".")
    return not name or bool(for_upload({section: {name: value}}, ())[section])


def without_paths(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts on runs, which have no keys of the configuration, without those that are paths."""
    return {
        key: value
        for key, value in facts.items()
        if key == "labels" or not any(map(_is_path, _texts(value)))
    }


def restored(config: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's configuration with the left out values, if the run's `config.yaml` is there.

    Args:
        config: from the checkpoint.
        checkpoint: its file, in the folder `checkpoints` of the run.
    """
    run = None
    with suppress(InputError):
        run = read_yaml(checkpoint.parent.parent / CONFIG)
    return _restored(config, run)


def left_out(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the keys that were left out."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from left_out(value, f"{prefix}{name}.")
        elif _is_left_out(value):
            yield f"{prefix}{name}"


def _is_left_out(value: Any) -> bool:
    return value in (LEFT_OUT, [LEFT_OUT])


def _restored(config: Any, run: Any) -> Any:
    if not isinstance(run, Mapping):
        return config
    if isinstance(config, Mapping):
        return {name: _restored_value(value, name, run) for name, value in config.items()}
    return config


def _restored_value(value: Any, name: str, run: Mapping[str, Any]) -> Any:
    if _is_left_out(value):
        return run.get(name, value)
    return _restored(value, run.get(name))


def _walk(
    config: Mapping[str, Any], replace: Callable[[Any], Any] | None, kept: tuple[str, ...] = ()
) -> dict[str, Any]:
    source = str((config.get("data") or {}).get("source"))
    harmless = _Harmless(_defaults(source), kept)
    return _section(config, _schema(source), harmless, replace)


def _section(
    nodes: Mapping[str, Any],
    schema: Any,
    harmless: "_Harmless",
    replace: Callable[[Any], Any] | None,
    prefix: str = "",
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in nodes.items():
        key, inner = f"{prefix}{name}", getattr(schema, name, None)
        if isinstance(value, Mapping) and (is_dataclass(inner) or not prefix):
            found[name] = _section(value, inner, harmless, replace, f"{key}.")
        elif harmless(key, value, _choices(schema, name)):
            found[name] = value
        elif replace is not None:
            found[name] = replace(value)
    return found


class _Harmless:
    """Whether a value cannot name a person or a place."""

    def __init__(self, defaults: Mapping[str, Any], kept: tuple[str, ...]) -> None:
        self.defaults, self.kept = defaults, kept

    def __call__(self, key: str, value: Any, choices: tuple[Any, ...]) -> bool:
        if key in (*self.kept, *LABELS) or key.partition(".")[0] in self.kept:
            return True
        if key == "backbone.name":  # xrv/NAME and hf-hub:OWNER/NAME are no places
            return "\\" not in value and value.count("/") < 2 and not value.startswith("/")
        if key in MODEL:
            return not any(map(_is_path, _texts(value)))
        return value == self.defaults.get(key) or set(_texts(value)) <= set(choices)


def _texts(value: Any) -> Iterator[str]:
    """All text in a value, the keys of mappings too."""
    if isinstance(value, Mapping):
        for item in value.items():
            yield from _texts(list(item))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    elif value is not None and not isinstance(value, bool | int | float):
        yield str(value)


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text


def _choices(schema: Any, name: str) -> tuple[Any, ...]:
    declared = getattr(schema, "__dataclass_fields__", {}).get(name)
    return tuple(declared.metadata.get("choices", ())) if declared else ()


def _schema(source: str) -> Any:
    from fluoroscope.config.train import Train  # it imports what imports this module

    return Train(data=sources.keys_of(source)()) if source in sources.names() else Train()


@cache
def _defaults(source: str) -> dict[str, Any]:
    """The defaults of `conf/` by dotted key; those of the source first."""
    files = {"": "train", "data.": f"data/{source}", "logger.": "logger/wandb"}
    found: dict[str, Any] = {}
    for prefix, name in files.items():
        file = CONF / f"{name}.yaml"
        if file.is_file():
            found |= _flat(yaml.safe_load(file.read_text(encoding="utf-8")), prefix)
    return found


def _flat(nodes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nodes.items():
        deeper = isinstance(value, Mapping) and not prefix
        flat |= _flat(value, f"{prefix}{name}.") if deeper else {f"{prefix}{name}": value}
    return flat
