"""Upload offline W&B runs, one by one, the oldest first.

The command can be repeated: it skips what is uploaded and continues what was cut short. A run that
ended and was never resumed is uploaded with `wandb sync`. Any other run is logged again from its
run folder, as one W&B run.

Examples:
  python scripts/sync.py runs=outputs --dry-run       # list them; needs no key and no network
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
