"""Read a YAML file that a stranger may have written, as plain values and nothing else.

OmegaConf would resolve `${oc.env:SECRET}`; PyYAML would keep the last of two equal keys, multiply
aliases, and overflow the stack on deep nesting.
"""

from pathlib import Path
from typing import Any

import yaml

from fluoroscope.errors import InputError

# libyaml's loader, where there is one, reads a configuration ten times faster.
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_BYTES, DEEPEST, LONGEST = 2**20, 20, 60
PLAIN = (str, int, float, bool, type(None))


class _Loader(FAST):  # type: ignore[misc, valid-type]
    """Plain values only, from mappings whose keys differ; a date stays text."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse what PyYAML resolves here: merged mappings (`<<`), and equal keys by the last."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value == "<<" or not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a name")
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {short(key.value)} is there twice"
                )
            seen.add(key.value)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)
for _kind in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", yaml.SafeLoader.construct_undefined)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file, which may hold `${...}` as text.

    Raises:
        InputError: `cannot read RUN/config.yaml: it is empty`, or another reason.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise InputError(f"it has more than {MOST_BYTES:,} bytes")
        if not text.strip(b"\0 \r\n\t"):
            raise InputError("it is empty")
        decoded = text.decode("utf-8")
        _check_events(decoded)
        values = yaml.load(decoded, _Loader)
        if not isinstance(values, dict):
            raise InputError("it is not a mapping of keys to values")
    except (OSError, ValueError, OverflowError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {file}: {_reason(error)}") from None
    return values


def _check_events(text: str) -> None:
    """Refuse deep nesting and aliases before anything is built."""
    depth = 0
    for event in yaml.parse(text, FAST):
        if isinstance(event, yaml.AliasEvent):
            raise InputError("it has an alias (*NAME), which no configuration here has")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError(f"it is nested more than {DEEPEST} levels deep")


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    where = "" if mark is None else f" in line {mark.line + 1}"
    return f"it is not valid YAML{where}" + (f" ({problem})" if isinstance(problem, str) else "")


def check_plain(place: str, node: Any, key: str = "", depth: int = 0) -> None:
    """Refuse anything but nested dicts, lists, text, numbers, true, false and null, and any text
    that OmegaConf would replace: `${...}` or `???`.

    Args:
        place: file that holds the node, for the refusal.
        key: dotted name of the node.

    Raises:
        InputError: names the key.
    """
    if depth > DEEPEST:
        raise InputError(f"{place}: {short(key)} is nested more than {DEEPEST} levels deep")
    if isinstance(node, dict):
        for name, value in node.items():
            # Arguments of a callback, a record, may have numbers as names.
            named = isinstance(name, int) and key.startswith(("callbacks.", "loggers."))
            if not (named or isinstance(name, str)) or "${" in str(name):
                raise InputError(
                    f"{place}: {short(f'{key}.{name}'.strip('.'))} is not a key's name"
                )
            check_plain(place, value, f"{key}.{name}".strip("."), depth + 1)
    elif isinstance(node, list):
        for value in node:
            check_plain(place, value, key, depth + 1)
    elif not isinstance(node, PLAIN):
        raise InputError(f"{place}: {short(key)} holds a {type(node).__name__}, not a plain value")
    elif isinstance(node, str) and ("${" in node or node == "???"):
        raise InputError(
            f"{place}: {short(key)} is {short(node)}, which a stored configuration cannot hold; "
            "write its value there"
        )


def short(text: Any) -> str:
    """A name or value of a file as an error shows it: in one line, and cut after 60 characters.

    >>> short("head.width"), short(0.1), short("a" * 99)[-9:]
    ('head.width', '0.1', 'aaaaaa...')
    """
    word = str(text)
    word = word if word.isprintable() else ascii(word)
    return word if len(word) <= LONGEST else f"{word[:LONGEST]}..."
