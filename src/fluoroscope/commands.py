"""Where the commands and their configuration lie, and how a user calls a command.

A clone has them at its top, in `scripts/` and `conf/`. An installed package holds a copy of both.
"""

import os
import re
from pathlib import Path

PACKAGE = Path(__file__).parent
IS_INSTALLED = (PACKAGE / "conf").is_dir()
HOME = PACKAGE if IS_INSTALLED else PACKAGE.resolve().parents[1]
CONF, SCRIPTS = HOME / "conf", HOME / "scripts"
PROGRAM = "FLUOROSCOPE_PROGRAM"  # is set in a process that `fluoroscope NAME` has started


def names() -> list[str]:
    """The names of all commands; `scripts/` is the table of them."""
    return sorted(file.stem for file in SCRIPTS.glob("*.py"))


def called(name: str) -> str:
    """How this user calls a command: `python scripts/train.py`, or `fluoroscope train`."""
    if IS_INSTALLED or PROGRAM in os.environ:
        return f"fluoroscope {name}"
    return f"python scripts/{name}.py"


def as_called(text: str) -> str:
    """A text that names scripts, with the calls of this user."""
    return re.sub(r"(?:python )?scripts/(\w+)\.py", lambda script: called(script[1]), text)


def sbatch_file() -> str:
    """The file for `sbatch`; the path in a clone is relative to its top."""
    file = "scripts/slurm/train.sbatch"
    return str(HOME / file) if IS_INSTALLED else file
