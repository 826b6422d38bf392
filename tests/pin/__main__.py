import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.pin.pinned import COMMANDS, FILES, RECORD, RUNS, kept

SCRIPTS = Path(__file__).parents[2] / "scripts"


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": f"{place}/cache"}
        for name, arguments in COMMANDS.items():
            command = [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments]
            subprocess.run(command, cwd=place, env=env, check=True, capture_output=True)
        new = {f"{run}/{file}": kept(Path(place, run, file)) for run in RUNS for file in FILES}
    if sys.argv[1:] == ["record"]:
        for name, text in new.items():
            (RECORD / name).parent.mkdir(parents=True, exist_ok=True)
            (RECORD / name).write_text(text)
        return 0
    moved = [name for name, text in new.items() if (RECORD / name).read_text() != text]
    print("\n".join(f"moved: {name}" for name in moved) or f"{len(new)} files are the same")
    return len(moved) > 0


if __name__ == "__main__":
    sys.exit(main())
