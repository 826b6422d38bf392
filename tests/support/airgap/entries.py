"""Commands of `scripts/`, one after the other in this process, each as a person would start it.

python entries.py '[["train", "head.activation=relu"], ["sync", "--dry-run"]]'
"""

import json
import runpy
import sys
import traceback
from pathlib import Path

SCRIPTS = Path(__file__).parents[3] / "scripts"


def run(name: str, arguments: list[str]) -> int | str | None:
    """The exit code of a command."""
    sys.argv = [str(SCRIPTS / f"{name}.py"), *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    for name, *arguments in json.loads(sys.argv[1]):
        print(f"== {name}", flush=True)
        print(f"== {name} ended with {run(name, arguments)}", flush=True)
