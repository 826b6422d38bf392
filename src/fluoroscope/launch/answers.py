"""Whether something answers within a time; light."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable


def in_time(ask: Callable[[], bool], timeout_s: float) -> bool:
    """The answer of `ask`, or False if there is none in time.

    `ask` runs in a thread, since the lookup of a host name has no timeout.
    """
    answered = threading.Event()

    def run() -> None:
        if ask():
            answered.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answered.is_set()


def answers(url: str, timeout_s: float) -> bool:
    """Whether a server answers, with any HTTP status."""

    def ask() -> bool:
        try:
            urllib.request.urlopen(url, timeout=timeout_s).close()
        except urllib.error.HTTPError:
            return True
        except (OSError, ValueError):
            return False
        return True

    return in_time(ask, timeout_s)
