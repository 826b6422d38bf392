"""An error without the words of its user: only text that is written in this program's code.

A message may hold names of files, columns, cells and people in any form, so that no pattern finds
them all. Here nothing of the message is copied. Its fixed parts come from the source code, at the
line that made the error; a value is written only if it is a word of this program or of the system.
"""

import ast
import errno
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from fluoroscope.commands import CONF, PACKAGE, called, names
from fluoroscope.errors import InputError


def error_template(error: BaseException) -> str:
    """The error in one line, without values: `cannot read <path>: <...>; correct this`.

    An error that this program does not explain is told by its type and its place in the code.
    """
    call = _call(error) if isinstance(error, InputError) else None
    if call is None or not call.args:
        return _type_and_place(error)
    text = "".join(_texts(list(_parts(call.args[0])), error))
    text = re.sub("(<[^>]*>)(<[^>]*>)+", r"\1", text)  # of a value and a guess of what was meant
    return text if re.sub("<[^>]*>", "", text).strip() else _type_and_place(error)


def _call(error: InputError) -> ast.Call | None:
    """The call in this program's code that made the error."""
    file, line = error.made_at
    if not Path(file).is_relative_to(PACKAGE):
        return None
    name = type(error).__name__
    calls = [c for c in _calls(file) if c.lineno == line and ast.unparse(c.func).endswith(name)]
    return calls[0] if calls else None


@cache
def _calls(file: str) -> list[ast.Call]:
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _parts(message: ast.expr) -> Iterator[ast.expr]:
    """The fixed parts of an f-string, and the expressions between them."""
    for part in message.values if isinstance(message, ast.JoinedStr) else [message]:
        yield part.value if isinstance(part, ast.FormattedValue) else part


def _texts(parts: list[ast.expr], error: BaseException) -> Iterator[str]:
    """The text of each part; of an expression a placeholder, unless its value is a known word."""
    fixed = [_literal(part) for part in parts]
    pattern = "".join("(.*?)" if text is None else re.escape(text) for text in fixed)
    found = re.fullmatch(pattern, str(error), re.DOTALL)
    values = iter(found.groups() if found else [""] * len(parts))
    for part, text in zip(parts, fixed, strict=True):
        yield _known(next(values), part, error) if text is None else text


def _literal(part: ast.AST) -> str | None:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None


def _known(value: str, part: ast.expr, error: BaseException) -> str:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, InputError) and value == str(cause):
        return error_template(cause)
    literals = {text for node in ast.walk(part) if (text := _literal(node)) is not None}
    if value in literals | _own_words() or (value and set(value.split(".")) <= _key_words()):
        return value
    name = part.id if isinstance(part, ast.Name) else getattr(part, "attr", "...")
    return f"<{name}>"


@cache
def _own_words() -> frozenset[str]:
    """How commands are called, and the system's words, such as `No space left on device`."""
    calls = (called(name) for name in names())
    return frozenset([*calls, *(os.strerror(number) for number in errno.errorcode)])


@cache
def _key_words() -> frozenset[str]:
    """Parts of the keys in `conf/`, such as `head` and `activation`."""
    texts: Iterable[str] = (file.read_text() for file in CONF.rglob("*.yaml"))
    return frozenset(word for text in texts for word in re.findall(r"(?m)^ *(\w+):", text))


def _type_and_place(error: BaseException) -> str:
    """`OSError (No space left on device) in run/checkpoints.py, line 12`."""
    reason = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if not own:
        return f"{type(error).__name__}{reason}"
    file = Path(own[-1].filename).relative_to(PACKAGE)
    return f"{type(error).__name__}{reason} in {file}, line {own[-1].lineno}"
