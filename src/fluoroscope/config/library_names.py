"""Names that timm and albumentations define, without importing them, which takes seconds.

timm's networks are in a list, which `python -m fluoroscope.model.networks` writes; the names of its
optimizers and those of albumentations are read from their source. A misspelt name is therefore
refused at once; names that pass are checked by the library itself before data are read.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from fluoroscope.errors import InputError, nearest
from fluoroscope.model.contracts import architecture_of

_BLOCK = re.MULTILINE | re.DOTALL
MODEL = Path(__file__).parents[1] / "model"  # in which a network of the project's own may stand
LIST = MODEL / "networks.txt"


def check_network(key: str, value: str) -> None:
    """Refuse a network, or a weight tag, that timm does not have.

    Names come from the list of one version of timm; only another version is imported and asked.

    Raises:
        InputError: an unknown name, with the nearest known name.
    """
    if {"/", ":"} & {*value}:  # of torchxrayvision, or a repository of the hub
        architecture_of(value)
        return
    listed_version, known = networks()
    architecture = value.partition(".")[0]
    tag = None if value == architecture else value.partition(".")[2]
    if architecture in own_networks() or tag in known.get(architecture, ()):
        return
    if version_of_timm() != listed_version:
        known = asked_of_timm(architecture)
    if architecture not in known:
        raise InputError(f"{key}: timm has no model {value!r}{nearest(architecture, known)}")
    if tag not in known[architecture]:
        tags = [f"{architecture}.{name}" for name in known[architecture] if name is not None]
        raise InputError(
            f"{key}: timm has no weights {value!r}{nearest(value, tags)}; of {architecture} it "
            f"has {', '.join(tags) or 'none'}"
        )


def check_transforms(key: str, value: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a transform or an argument that albumentations does not have.

    Raises:
        InputError: an unknown name, with the nearest known name.
    """
    known = classes_of_albumentations()
    for entry in value:
        name = str(entry.get("name", ""))
        if known and name not in known:
            raise InputError(
                f"{key}: albumentations has no transform {name!r}{nearest(name, known)}; each "
                "entry is {name: Affine, rotate: [-7, 7], p: 0.9}"
            )
        arguments = arguments_of_transform(name)
        for argument in sorted(set(entry) - {"name"}) if arguments else ():
            if argument not in arguments:
                raise InputError(
                    f"{key}: {name} has no argument {argument!r}{nearest(argument, arguments)}; it "
                    f"has {', '.join(sorted(arguments))}"
                )


def check_optimizer_name(key: str, value: str) -> None:
    """Refuse an optimizer that timm does not have.

    Raises:
        InputError: an unknown name, with the nearest known name.
    """
    known = optimizers()
    if known and value not in known:
        raise InputError(
            f"{key}: timm has no optimizer {value!r}{nearest(value, known)}; some that it has are "
            "adamw, sgd, lion, lamb"
        )


@cache
def optimizers() -> frozenset[str]:
    """All names in the registry of timm's source; empty if it is written in another way."""
    text = _source("timm", "optim")
    named = r"OptimInfo\(\s*(?:name=)?'(\w+)'|register_alias\('(\w+)'"
    return frozenset(one or other for one, other in re.findall(named, text))


@cache
def networks() -> tuple[str, dict[str, tuple[str | None, ...]]]:
    """Timm's version, and the weight tags of each of its networks; None stands for no tag."""
    first, *lines = LIST.read_text(encoding="utf-8").splitlines()
    rows = (line.split() for line in lines)
    return first.partition(" ")[2], {name: (None, *tags) for name, *tags in rows}


@cache
def own_networks() -> frozenset[str]:
    """Networks that a module of this project registers with timm."""
    text = "".join(file.read_text(encoding="utf-8") for file in MODEL.glob("*.py"))
    found = re.findall(r"^@(?:\w+\.)*register_model\s+def (\w+)\(", text, re.MULTILINE)
    return frozenset(found)


def version_of_timm() -> str:
    return version("timm")


def asked_of_timm(architecture: str) -> dict[str, tuple[str | None, ...]]:
    """All networks of the installed timm, with the tags of this one; it imports PyTorch."""
    return import_module("fluoroscope.model.networks").known(architecture)


@cache
def classes_of_albumentations() -> frozenset[str]:
    """All classes in the library's source; transforms are among them."""
    return frozenset(re.findall(r"^class ([A-Z]\w+)\(", _source("albumentations"), re.MULTILINE))


@cache
def arguments_of_transform(name: str) -> frozenset[str]:
    """Arguments in the source of a class of albumentations; empty if it does not list them."""
    found = re.search(rf"^class {name}\(.*?(?=^\S|\Z)", _source("albumentations"), _BLOCK)
    if not (name and found):
        return frozenset()
    definition = cast(ast.ClassDef, ast.parse(found[0]).body[0])
    for part in definition.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            listed = [] if part.args.kwarg else [*part.args.args, *part.args.kwonlyargs]
            return frozenset(argument.arg for argument in listed) - {"self"}
    bases = (base.id for base in definition.bases if isinstance(base, ast.Name))
    return next(filter(None, map(arguments_of_transform, bases)), frozenset())


@cache
def _source(package: str, folder: str = "") -> str:
    """The text of all modules; empty if the package is not installed."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return ""
    files = sorted((Path(found.origin).parent / folder).rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
