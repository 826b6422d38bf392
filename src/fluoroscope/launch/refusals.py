"""One sentence about a refusal, however many processes the run has.

The process that refuses first prints it, and enters it in the store that PyTorch's processes share.
The others lose the connection to it; they take over its refusal, print nothing, and end with the
same exit code. Before the processes have met there is no store: a process that Lightning started
prints its refusal, since the first process has passed that point, and signals the first one.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from fluoroscope.errors import CRASH, InputError, first_sentence
from fluoroscope.launch import stopping

KEY = "fluoroscope/refusal"


class _Known:
    """What this process knows of its end; once that is settled, a signal changes nothing."""

    settled = False
    of_another: InputError | None = None


def sentence(error: BaseException) -> str:
    """An error in one line; any but an InputError starts with its type."""
    if isinstance(error, InputError):
        # An error from a loader's worker has the traceback in its text.
        return " ".join(str(error).rpartition("InputError: ")[2].splitlines())
    kind, message = type(error).__name__, first_sentence(error)
    return kind if message == kind else f"{kind}: {message}"


def listen() -> None:
    """End this process as soon as another one signals its refusal."""
    _Known.settled, _Known.of_another = False, None
    signal.signal(stopping.REFUSED, _hear)


def _hear(signum: int, frame: Any) -> None:
    stopping.hear()
    if _Known.settled:
        return
    _Known.of_another = _told("another process refused its input")
    with suppress(Exception):  # of the store
        _Known.of_another = _of_another() or _Known.of_another
    raise _Known.of_another


def tell_first_process() -> None:
    """Call it at the end of a process that Lightning started, and that has refused its input."""
    os.kill(os.getppid(), stopping.REFUSED)


def settled(error: Exception) -> Exception:
    """The error with which this process ends: its own, or the refusal of which it is a consequence.

    Raises:
        SystemExit: the error is a consequence of the end of the first process, which has told why.
    """
    refused, other = isinstance(error, InputError), _Known.of_another
    try:
        if isinstance(error, InputError) and other is None:
            _enter(error)
        other = other or _of_another()
    except Exception:  # of the store, which has ended with the first process
        if not isinstance(error, InputError):
            raise SystemExit(CRASH) from None
        error.told = True
    _Known.settled = refused or other is not None
    return error if other is None else other


def _enter(error: InputError) -> None:
    """Enter a refusal in the store, unless another process was faster."""
    if (store := _store()) is not None:
        store.compare_set(KEY, "", json.dumps([_rank(), str(error), *error.made_at]))


def _of_another() -> InputError | None:
    """The refusal that another process has entered."""
    store = _store()
    if store is None or not store.check([KEY]):
        return None
    rank, text, *made_at = json.loads(store.get(KEY))
    if rank == _rank():
        return None
    error = _told(text)
    error.made_at = made_at[0], made_at[1]
    return error


def _told(text: str) -> InputError:
    error = InputError(text)
    error.told = True
    return error


def _rank() -> int:
    return sys.modules["torch.distributed"].get_rank()


def _store() -> Any:
    """The store of the processes that have met; None if this process is alone."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed.distributed_c10d._get_default_store()
