"""The YAML files of a user's own folder: read before Hydra does, and named in refusals."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fluoroscope.config.schema import keys
from fluoroscope.errors import InputError

EVERYWHERE = "# @package _global_"  # begins a file whose keys are those of the run
HEADER = re.compile(r"\s*#\s*@package\s+_global_")  # Hydra looks at no later line


@contextmanager
def named(folder: str | None, overrides: Sequence[str]) -> Iterator[None]:
    """Name the file of `--config-dir` that sets what is refused; the command line wins over it.

    Raises:
        InputError: a chosen file is not YAML, holds no keys, or lacks its first line; and any
            refusal, with the file before it.
    """
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    files = {file: _keys_of(file, group) for file, group in _chosen(folder, overrides)}
    try:
        yield
    except InputError as refusal:
        key = _refused_key(str(refusal))
        blamed = [file for file, own in files.items() if key in own and key not in given]
        if not blamed:
            raise
        raise type(refusal)(f"{blamed[-1]}: {refusal}") from None


def _chosen(folder: str | None, overrides: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The files of the folder that the command line chooses, with their groups."""
    for override in overrides if folder else []:
        group, _, choices = override.lstrip("+").partition("=")
        for choice in re.findall(r"[\w./-]+", choices):
            file = Path(str(folder), group, f"{choice}.yaml")
            if re.fullmatch(r"[\w/]+", group) and file.is_file():
                yield file, group


def _keys_of(file: Path, group: str) -> set[str]:
    """The dotted keys and the groups that a file sets, and the sections above them.

    Raises:
        InputError: it cannot be read, or its keys would count nowhere.
    """
    try:
        text = file.read_text(encoding="utf-8")
        found: Any = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise InputError(f"{file} is not YAML in UTF-8{place}; correct it") from None
    if not isinstance(found, dict) or not found:
        raise InputError(f"{file} holds no keys; write them as KEY: VALUE")
    is_global = HEADER.match(text) is not None
    if group == "experiment" and not is_global:
        raise InputError(f"{file}: its first line must be {EVERYWHERE}, so that its keys count")
    prefix = "" if is_global else f"{group.replace('/', '.')}."
    listed = found.pop("defaults", None) or []
    groups = [word for entry in listed if isinstance(entry, dict) for word in entry]
    dotted = [f"{prefix}{key}" for key in keys(found)]
    chosen = {word.removeprefix("override ").lstrip("/") for word in map(str, groups)}
    return chosen | {".".join(key.split(".")[:n]) for key in dotted for n in range(1, 9)}


def _refused_key(refusal: str) -> str:
    """The key that a refusal begins with."""
    found = re.match(r"(?:there is no key )?([\w/]+(?:\.\w+)*)", refusal)
    return found[1] if found else ""
