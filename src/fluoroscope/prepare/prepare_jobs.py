"""The jobs of `scripts/prepare.py`."""

import signal
import sys

from fluoroscope.config.prepare import Audit, Copy, Job
from fluoroscope.launch.stopping import Stopped


def main(job: Job | Audit | Copy) -> None:
    """Entry of `scripts/prepare.py`; each job imports what it needs.

    Raises:
        SystemExit: on a signal.
    """
    try:
        _run(job)
    except (KeyboardInterrupt, SystemExit) as stop:
        print("stopped; run the same command again to continue", file=sys.stderr, flush=True)
        code = stop.code if isinstance(stop, SystemExit) else 128 + signal.SIGINT
        if isinstance(stop, Stopped):
            stop.told = True
        raise SystemExit(code) from None


def _run(job: Job | Audit | Copy) -> None:
    if isinstance(job, Job):
        from fluoroscope.prepare import weights

        weights.main(job)
    elif isinstance(job, Copy):
        from fluoroscope.prepare import copying

        copying.main(job)
    else:
        from fluoroscope.prepare import collection_audit

        collection_audit.main(job)
