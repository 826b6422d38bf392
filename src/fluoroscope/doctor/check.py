"""One line for each part of the machine; a check that hangs or fails stops no other."""

import re
import threading
from collections.abc import Callable
from typing import NamedTuple

from fluoroscope.launch.error_template import error_template

OK, NOTE, BAD = "ok", "note", "problem"


class Found(NamedTuple):
    """What a check says of its part, and what to do about it; nothing that names a person."""

    state: str  # OK | NOTE: runs start, with less | BAD: the run does not start, or fails later
    text: str
    advice: str = ""


class Check(NamedTuple):
    part: str  # such as `GPU`
    look: Callable[[], Found]
    limit_s: float


def run_check(check: Check) -> Found:
    """The result of the check, or that it failed or did not end in time.

    It runs in a thread, since the look-up of a host name and a lost network drive have no timeout.
    """
    found: list[Found] = []

    def run() -> None:
        found.append(_tried(check.look))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(check.limit_s)
    return found[0] if found else Found(BAD, f"no answer within {check.limit_s:g} s")


def _tried(look: Callable[[], Found]) -> Found:
    try:
        return look()
    except Exception as error:  # a broken installation raises anything
        return Found(BAD, describe(error))


def describe(error: BaseException) -> str:
    """The error without the words of the user, but with the library that a loader lacks."""
    library = re.search(r"\blib[\w.+-]+\.(?:so|dylib)\b[\d.]*", str(error))
    return error_template(error) + (f" ({library[0]})" if library else "")
