"""Names that timm and albumentations define, without importing them, which takes seconds.

The names are read from the source text of the installed libraries. A misspelt name is therefore
refused at once; names that pass are checked by the library itself before data are read.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fluoroscope.errors import InputError, nearest

NETWORKS = Path(__file__).parents[1] / "model"  # in which a network of the project's own may stand


def check_network(key: str, value: str) -> None:
    """Refuse a network that timm does not have; its weight tag is not checked.

    Raises:
        InputError: an unknown name, with the nearest known name.
    """
    registered, renamed = networks()
    architecture = value.partition(".")[0]
    if registered and architecture not in registered | renamed:
        raise InputError(f"{key}: timm has no model {value!r}{nearest(architecture, registered)}")


def check_transforms(key: str, value: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a transform that albumentations does not have; its arguments are not checked.

    Raises:
        InputError: an unknown name, with the nearest known name.
    """
    known = classes_of_albumentations()
    for name in (str(entry.get("name", "")) for entry in value):
        if known and name not in known:
            raise InputError(
                f"{key}: albumentations has no transform {name!r}{nearest(name, known)}; each "
                "entry is {name: Affine, rotate: [-7, 7], p: 0.9}"
            )


@cache
def networks() -> tuple[frozenset[str], frozenset[str]]:
    """Names that are registered with timm, and keys of mappings: timm maps former names to them."""
    text = _source("timm", "models") + "".join(file.read_text() for file in NETWORKS.glob("*.py"))
    registered = re.findall(r"^@(?:\w+\.)*register_model\s+def (\w+)\(", text, re.MULTILINE)
    return frozenset(registered), frozenset(re.findall(r"['\"](\w+)['\"]\s*:", text))


@cache
def classes_of_albumentations() -> frozenset[str]:
    """All classes in the library's source; transforms are among them."""
    return frozenset(re.findall(r"^class ([A-Z]\w+)\(", _source("albumentations"), re.MULTILINE))


def _source(package: str, folder: str = "") -> str:
    """The text of all modules; empty if the package is not installed."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return ""
    files = sorted((Path(found.origin).parent / folder).rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
