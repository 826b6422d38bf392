"""Make the W&B workspace that compares heads: outcome, units, gradients and speed, by activation.

Examples:
  python scripts/dashboard.py --dry-run             # what it would be; no key, no network
  python scripts/dashboard.py project=fluoroscope entity=my-team
  python scripts/dashboard.py group_by=head.order name='orders compared'
"""

import sys

from fluoroscope.command.entry import command

if __name__ == "__main__":
    sys.argv[1:] = ["dry_run=true" if word == "--dry-run" else word for word in sys.argv[1:]]
    check = "fluoroscope.config.dashboard:check_dashboard"
    command(__doc__, "dashboard", "fluoroscope.tracking.dashboard:main", check)
