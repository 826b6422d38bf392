"""A worker of `benchmarks.gpu` that measures nothing, and starts at once: it imports no torch."""

import os
import time
from types import SimpleNamespace


def obey(pipe, device, folder):
    """Parts that do what they are called."""
    # Each part may take far longer than it needs, so that a busy machine changes nothing.
    limits = {"good": ("good", 0, 600, False), "slow": ("slow", 0, 0.3, False)}
    limits |= {"crash": ("crash", 0, 600, False), "late": ("late", 9000, 9000, False)}
    limits |= {"after": ("after", 0, 600, False)}
    pipe.send({"machine": {"device": "cpu", "cpu": "a", "cores": 1}, "parts": limits})
    while True:
        name = pipe.recv()
        if name == "slow":
            time.sleep(60)
        if name == "crash":
            os._exit(7)
        arms = {"one": {"seconds": {"median": 2.0, "low": 1.0, "high": 3.0}}}
        columns = [SimpleNamespace(head="seconds", key="seconds", form=".1f")]
        target = {"what": "seconds", "value": 2.0, "at_most": 1.0, "met": False}
        pipe.send({"columns": columns, "arms": arms, "targets": [target], "note": "a note"})
