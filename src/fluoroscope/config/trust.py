"""The user's own code that today's command trusts: what it names, and the key `trust`.

`trust` belongs to the command and not to the run: no stored configuration has it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fluoroscope.errors import InputError, shown
from fluoroscope.own_code import check_trusted, is_path

TRUST = "trust"
# Keys that name code, by the last part of their name; `remedies` hold such keys as text.
NAMING = ("activation", "activations", "source", "scores", "_target_")


def trusted_today(cfg: DictConfig) -> set[str]:
    """The names to trust while a composed configuration is checked and used.

    All of it is today's: the command line, `conf/`, and the experiments of `--config-dir`.

    Raises:
        InputError: `trust` is not a list of names.
    """
    config: Any = OmegaConf.to_container(cfg)
    listed = config.get(TRUST) or []
    if not isinstance(listed, list) or not all(map(_is_name, listed)):
        raise InputError(
            f"trust must be a list of packages, written 'trust=[mypkg]'; got {shown(listed)}"
        )
    return {*listed, *_named(config)}


def check_code(stored: dict[str, Any], place: Path) -> None:
    """Refuse a stored configuration of a model whose code today's command does not trust.

    Args:
        place: the file that holds it.

    Raises:
        InputError: names the key, the code and `trust`.
    """
    for section, key in (("head", "activation"), ("data", "source")):
        if is_path(name := stored[section][key]):
            check_trusted(f"{section}.{key}", name, place)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def _named(node: Any, names_code: bool = False) -> Iterator[str]:
    """The import paths in the values of `NAMING`."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _named(str(key), names_code)  # of `activations`, with arguments
            yield from _named(value, names_code or str(key).rpartition(".")[2] in NAMING)
    elif isinstance(node, list):
        for value in node:
            yield from _named(value, names_code)
    elif isinstance(node, str):
        key, equals, value = node.partition("=")
        if equals:  # an override in `remedies`
            yield from _named({key: value})
        elif names_code and is_path(node):
            yield node
