"""How a run ended, as its folder tells it; light, for those who only look.

`result.json` is there once a run finished, `failed.json` if an error ended it; neither while it is
going on, or where it was stopped and can be continued.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fluoroscope.atomic_write import write_atomically
from fluoroscope.errors import InputError, first_sentence

CONFIG, RESULT, FAILED = "config.yaml", "result.json", "failed.json"
BAD_INPUT, CRASH = 2, 1
AUTO = "auto"  # of run.resume: the run in run.dir, if it was begun
# File names often name patients: quoted or bare, with a separator or an image's suffix. A logged
# key has a separator too.
BARE, KEY = r"[^\s'\",;()]", r"(?:train|val|test|units|grad)/"
FILE = re.compile(
    rf"""'[^']*[/\\][^']*'|"[^"]*[/\\][^"]*"|(?<!{BARE})(?!{KEY}){BARE}*[/\\]\w{BARE}*|"""
    rf"""{BARE}+\.(?:png|jpe?g|tiff?|bmp|dcm|dicom)\b""",
    re.IGNORECASE,
)


def without_files(text: str) -> str:
    """A text with `<file>` for each path or image's name, and for words between two of them.

    >>> without_files("cannot read /data/Jane Doe/a.png: it is empty")
    'cannot read <file> it is empty'
    """
    return re.sub(r"<file>(?: [\w.-]*)* ?<file>", "<file>", FILE.sub("<file>", text))


def sentence(error: BaseException) -> str:
    """What an error says in one line; that of a program's fault starts with its type."""
    if isinstance(error, InputError):
        # An error out of a loader's worker arrives with the traceback in its text.
        return " ".join(str(error).rpartition("InputError: ")[2].splitlines())
    kind, message = type(error).__name__, first_sentence(error)  # type: ignore[arg-type]
    return kind if message == kind else f"{kind}: {message}"


def mark_failed(folder: Path, error: BaseException) -> None:
    """Write `failed.json`: the error's sentence without file names, and the exit code it means."""
    failed = {
        "error": without_files(sentence(error)),
        "exit_code": BAD_INPUT if isinstance(error, InputError) else CRASH,
    }
    # On a full disk the error itself is what matters.
    with suppress(OSError), write_atomically(folder / FAILED) as part:
        part.write_text(json.dumps(failed, indent=2) + "\n")


@contextmanager
def failure_marked(folder: Path, first_process: bool = True) -> Iterator[None]:
    """Marks a run that an error ends; one that is stopped can be continued and is not marked."""
    if first_process:
        for name in (RESULT, FAILED):  # of the run that is continued
            (folder / name).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if first_process:
            mark_failed(folder, error)
        raise


def failure(folder: Path) -> dict[str, Any] | None:
    """What `failed.json` holds, if there is one that can be read."""
    try:
        return json.loads((folder / FAILED).read_text())
    except (OSError, ValueError):
        return None
