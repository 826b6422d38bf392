"""Check a configuration against typed fields, and describe each problem in one sentence."""

from collections.abc import Callable, Iterator
from dataclasses import Field, field, fields, is_dataclass
from difflib import get_close_matches
from math import inf
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fluoroscope.choices import Range
from fluoroscope.config.substitutes import INSTEAD
from fluoroscope.config.trust import TRUST
from fluoroscope.errors import InputError, check_choice, shown

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def one_of(*choices: str | int) -> Any:
    """A dataclass field that takes one of these words or numbers, or a list of them."""
    return field(default=MISSING, metadata={"choices": choices})


def number(low: float, high: float = inf, ends: str = "[]") -> Any:
    """A dataclass field that takes a number in a `Range`, or None if its type allows it."""
    return field(default=MISSING, metadata={"range": Range(low, high, ends)})


def ruled(rule: Callable[[str, Any], None], default: Any = MISSING) -> Any:
    """A dataclass field whose value is checked by `rule(key, value)`.

    Args:
        default: the value of runs that are older than the key.
    """
    return field(default=default, metadata={"rule": rule})


def plain(cfg: Any) -> Any:
    """The configuration as nested dicts, lists and values; other values are returned unchanged."""
    return OmegaConf.to_container(cfg) if OmegaConf.is_config(cfg) else cfg


def check_value(key: str, value: Any, declared: Field[Any]) -> None:
    """Refuse a value that its field does not accept.

    Raises:
        InputError: `head.norm must be one of batch, layer, none; got 'group'`.
    """
    limits = declared.metadata
    for word in value if isinstance(value, list) else [value]:
        if "choices" in limits:
            check_choice(key, word, limits["choices"])
    if "rule" in limits:
        limits["rule"](key, value)
    if "range" in limits and value is not None:
        limits["range"].check(key, value)


def check(cfg: DictConfig, schema: Any, whole: bool = True) -> Any:
    """Enforce all types and resolve all interpolations of a composed configuration.

    Args:
        cfg: the composed configuration.
        schema: instance of a dataclass; its fields that are dataclasses are sections.
        whole: refuse required keys without a value.

    `trust`, which every command has, is checked in `config.trust`.

    Raises:
        InputError: for an unknown key, a value of the wrong type, out of range or not among the
            choices, and a required key without a value.
    """
    typed = OmegaConf.structured(schema)
    nodes: Any = OmegaConf.to_container(cfg)
    nodes.pop(TRUST, None)
    given = dict(_leaves(nodes, schema, schema))
    for key, value in given.items():
        try:
            OmegaConf.update(typed, key, value, merge=False)
        except OmegaConfBaseException:
            wanted = _wanted(key, value, schema)
            raise InputError(f"{key} must be {wanted}; got {shown(value)}") from None
    for key, value in given.items():
        try:
            resolved = OmegaConf.select(typed, key)
        except OmegaConfBaseException as error:  # an interpolation of an unknown key
            reason = str(error).splitlines()[0].rpartition("resolving interpolation: ")[2]
            raise InputError(f"{key}={value}: {reason.strip('.')}") from None
        if "${" in str(plain(resolved)):  # written as \\${
            raise InputError(f"{key}: text with ${{ is not supported; got {shown(value)}")
        check_value(key, plain(resolved), _field(schema, key))
    if whole and (missing := sorted(OmegaConf.missing_keys(typed))):
        names = " and ".join(missing) + (" is" if len(missing) == 1 else " are")
        raise InputError(f"{names} not set; add {' '.join(f'{key}=...' for key in missing)}")
    OmegaConf.resolve(typed)
    return typed


def keys(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys of a configuration, without its sections."""
    nodes: Any = cfg if isinstance(cfg, dict) else OmegaConf.to_container(cfg)
    for name, node in nodes.items():
        if isinstance(node, dict) and node:
            yield from keys(node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def unknown_key(key: str, cfg: Any) -> InputError:
    """The error for an unknown key, with what takes its place, or the nearest known key."""
    if key in INSTEAD:
        return InputError(f"there is no key {key}; {INSTEAD[key]}")
    near = _nearest_key(key, list(keys(cfg)))
    return InputError(f"there is no key {key}{near}; --help shows them all")


def _nearest_key(key: str, known: list[str]) -> str:
    """Compares the last parts of dotted names, so that `lr` is near `optimizer.lr`."""
    section, _, last = key.rpartition(".")
    for pool in ([k for k in known if k.rpartition(".")[0] == section], known):
        last_part = {k.rpartition(".")[2]: k for k in pool}
        if match := get_close_matches(last, last_part, n=1):
            return f" (did you mean {last_part[match[0]]!r}?)"
    return ""


def _leaves(nodes: Any, section: Any, schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of all keys that are not sections."""
    for name, value in nodes.items():
        key = f"{prefix}{name}"
        if name not in {entry.name for entry in fields(section)}:
            raise unknown_key(key, OmegaConf.structured(schema))
        inner = getattr(section, name)
        if not is_dataclass(inner):
            yield key, value
        elif isinstance(value, dict):
            yield from _leaves(value, inner, schema, f"{key}.")
        else:
            first = f"{key}.{fields(inner)[0].name}"
            raise InputError(
                f"{key} must be a section with keys such as {first}; got {shown(value)}"
            )


def _field(schema: Any, key: str) -> Field[Any]:
    return _owner(schema, key).__dataclass_fields__[key.rpartition(".")[2]]


def _owner(schema: Any, key: str) -> Any:
    for section in key.split(".")[:-1]:
        schema = getattr(schema, section)
    return type(schema)


def _wanted(key: str, value: Any, schema: Any) -> str:
    """The values that the key's type allows, in words."""
    hint = get_type_hints(_owner(schema, key))[key.rpartition(".")[2]]
    if hint is str and (choices := _field(schema, key).metadata.get("choices")):
        return f"one of {', '.join(sorted(choices))}"
    options = (hint,) if get_origin(hint) in (list, dict) else get_args(hint) or (hint,)
    words = [_kind(key, value, option) for option in options if option is not type(None)]
    return " or ".join([*words, "null"] if type(None) in options else words)


def _kind(key: str, value: Any, kind: Any) -> str:
    if get_origin(kind) is list:
        sample = "{name: ...}" if get_origin(get_args(kind)[0]) is dict else "..."
        return f"a list, written '{key}=[{value if isinstance(value, str) else sample}]'"
    if get_origin(kind) is dict:
        return f"a mapping, written '{key}={{name: value}}'"
    return KINDS[kind]
