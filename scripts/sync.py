"""Upload offline W&B runs, one by one, in the order in which they were made.

What is uploaded already is passed over, so that the command can be repeated. The parts of a run
that was resumed become one run, without the steps that were taken twice.

Examples:
  python scripts/sync.py runs=outputs --dry-run       # what there is; no key, no network
  python scripts/sync.py runs=outputs
  python scripts/sync.py 'runs=[outputs/A,outputs/B]'
"""

import sys

from fluoroscope.command.entry import command

if __name__ == "__main__":
    sys.argv[1:] = ["dry_run=true" if word == "--dry-run" else word for word in sys.argv[1:]]
    command(
        __doc__,
        "sync",
        "fluoroscope.tracking.upload:main",
        "fluoroscope.config.sync:check_sync",
    )
