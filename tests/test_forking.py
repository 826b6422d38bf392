"""A forked command is and ends as one that Python starts."""

import signal
import subprocess
import sys
from functools import partial

import pytest

from tests.support.forking import FIXED, Forked, run_script

SCRIPTS = {
    "place": "import os, sys; print(sys.argv, sys.path[0], os.getcwd(), __name__)",
    "session": "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()))",
    "files": "import os; print(len(os.listdir('/proc/self/fd')))",
    "environment": "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))",
    "signals": "import signal as s; print(s.pthread_sigmask(0, []), s.getsignal(s.SIGINT))",
    "exit code": "raise SystemExit(3)",
    "exit text": "raise SystemExit('no')",
    "killed": "import os; os.kill(os.getpid(), 15)",
    "end": "import atexit, threading as t; atexit.register(print, 'bye'); "
    "t.Timer(0.2, print, ['last']).start()",
}


@pytest.fixture
def _all_signals_pass():
    """A cold process inherits the signals that an earlier test has blocked in this one."""
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, [])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.mark.usefixtures("_all_signals_pass")
@pytest.mark.parametrize("case", SCRIPTS)
def test_it_behaves_as_a_cold_one(tmp_path, case):
    script, env = tmp_path / "script.py", {"PATH": "/bin", "HOME": str(tmp_path), **FIXED}
    script.write_text(SCRIPTS[case])
    forked = Forked(partial(run_script, script, ["a b"]), tmp_path, env)
    out, err = forked.communicate(60)
    cold = subprocess.run(
        [sys.executable, str(script), "a b"],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert (forked.returncode, out, err) == (cold.returncode, cold.stdout, cold.stderr)


def test_an_error_is_told_with_its_place(tmp_path):
    (tmp_path / "script.py").write_text("1 / 0")
    forked = Forked(partial(run_script, tmp_path / "script.py", []), tmp_path)
    _, err = forked.communicate(60)
    assert forked.returncode == 1
    assert err.endswith("ZeroDivisionError: division by zero\n")
    assert f'"{tmp_path}/script.py", line 1' in err


def test_what_a_library_reads_when_it_is_imported_cannot_be_another(tmp_path):
    with pytest.raises(AssertionError, match="cold"):
        Forked(print, tmp_path, {"OMP_NUM_THREADS": "2"})
