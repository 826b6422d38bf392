"""A signal ends a command: its exit code, one line, no traceback, and nothing left behind."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluoroscope.launch import stopping
from tests.support import commands

SOURCE = Path(stopping.__file__).parents[2]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# It never returns, and lets other threads run.
LIBRARY = """
system, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
system.pthread_mutex_lock(mutex)
system.pthread_mutex_lock(mutex)
"""
# What a command may be busy with: Python, a library that does not return, its own end.
BUSY = {
    "python": "while True: time.sleep(0.1)",
    "library": LIBRARY,
    "swallowed": """
class Careless:
    def __del__(self):
        print("here", flush=True)
        time.sleep(20)
Careless()
""",
    "turned": """
try:
    time.sleep(20)
except BaseException:
    raise ImportError("partially initialized module") from None
""",
}
CASES = [(signal.SIGINT, busy) for busy in BUSY] + [(signal.SIGHUP, "python")]
CASES += [
    pytest.param(signum, busy, marks=pytest.mark.whole)
    for signum in SIGNALS
    for busy in BUSY
    if (signum, busy) not in CASES
]
COMMAND = """
import ctypes, signal, sys, time
from fluoroscope.command.run_one import quiet_end
from fluoroscope.launch import process_setup, stopping
process_setup.prepare()
with quiet_end():
    {setup}
    print("ready", flush=True)
    {busy}
"""


def code_of(busy, setup="pass"):
    lines = {"busy": busy, "setup": setup}
    return COMMAND.format(**{k: v.strip().replace("\n", "\n    ") for k, v in lines.items()})


def started(busy, setup="pass", **options):
    """A command that is busy; it does not inherit ignored signals."""
    process = subprocess.Popen(
        [sys.executable, "-c", code_of(busy, setup)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=options.pop("preexec_fn", commands.hear_signals),  # noqa: PLW1509
        **options,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process, limit_s=20):
    try:
        out, err = process.communicate(timeout=limit_s)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize(("signum", "busy"), CASES)
def test_a_signal_ends_a_command_with_its_code_and_one_line(signum, busy):
    process = started(BUSY[busy])
    time.sleep(0.2)
    before = time.monotonic()
    os.killpg(process.pid, signum)
    code, _, err = ended(process)
    assert code == 128 + signum
    assert time.monotonic() - before < 8
    told = f"fluoroscope: stopped by {signum.name}\n"
    assert err == ("" if busy == "swallowed" else told)


SAVING = """
stopping.WATCH.saving = True
signal.signal(signal.SIGINT, lambda *_: stopping.hear())
signal.signal(signal.SIGTERM, lambda *_: stopping.hear())
"""
WAITS = [BUSY["python"], BUSY["library"]]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait", WAITS)
def test_the_second_ctrl_c_ends_a_command_at_once_that_still_saves(first, wait):
    process = started(wait, SAVING)
    os.kill(process.pid, first)
    time.sleep(stopping.STUCK_S + 2 * stopping.POLL_S)
    assert process.poll() is None
    before = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    code, _, err = ended(process)
    assert (code, err) == (130, "")
    assert time.monotonic() - before < 2


def test_a_signal_that_is_sent_twice_within_a_moment_is_one():
    """As `timeout -s INT` does, to the process and to its group."""
    process = started(WAITS[0], SAVING)
    for _ in range(5):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.02)
    time.sleep(1)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    assert ended(process)[0] == 130


def ignore_hangups():
    commands.hear_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_nohup_stays():
    process = started(BUSY["python"], preexec_fn=ignore_hangups)
    os.kill(process.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process)[0] == 143


PRINTS = """
def save(*_):
    stopping.hear()
    time.sleep(0.3)  # the reader of a pipe may end a little later
    stopping.hear()
    for _ in range(1000):
        print("saving")
    print("saved", file=open({saved!r}, "w"), flush=True)
    sys.exit(0)
for signum in (signal.SIGHUP, signal.SIGINT):
    signal.signal(signum, save)
"""


def test_a_run_saves_after_its_terminal_has_closed(tmp_path):
    """The kernel sends the signal to the processes of the terminal, and each `print` fails."""
    saved = tmp_path / "saved"
    pid, terminal = pty.fork()
    if pid == 0:
        commands.hear_signals()
        os.environ["PYTHONPATH"] = str(SOURCE)
        code = code_of(BUSY["python"], PRINTS.format(saved=str(saved)))
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert saved.read_text() == "saved\n"


def test_ctrl_c_saves_after_it_has_ended_the_reader_of_the_output(tmp_path):
    """As in `python scripts/train.py | tee log`."""
    process = started(BUSY["python"], PRINTS.format(saved=str(tmp_path / "saved")))
    os.kill(process.pid, signal.SIGINT)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(20) == 0
    assert (tmp_path / "saved").read_text() == "saved\n"


FORKED = """
import os
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        time.sleep(0.1)
time.sleep(0.3)
os.kill(child, signal.SIGTERM)
os.waitpid(child, 0)
time.sleep(stopping.STUCK_S + 2 * stopping.POLL_S)
"""


def test_a_signal_to_a_loader_is_none_to_the_run():
    assert ended(started(FORKED))[0] == 0


# With the process that started it ----------------------------------------------------------------


@pytest.mark.parametrize("wait", [BUSY["python"], BUSY["library"]], ids=["python", "library"])
def test_a_process_ends_with_the_command_that_started_it(wait):
    child = code_of(wait)
    body = f"""
import os, subprocess
child = subprocess.Popen([sys.executable, "-c", {child!r}], stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
while True:
    time.sleep(0.1)
"""
    process = started(body)
    pid = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"  # the child's
    assert is_running(pid)
    process.kill()
    assert gone_within(pid, 5)
    process.communicate()


def test_a_rank_whose_first_process_ended_before_it_looked_ends():
    env = {"PYTHONPATH": str(SOURCE), "LOCAL_RANK": "1", stopping.PARENT: "999999999"}
    lightning = subprocess.run(
        [sys.executable, "-c", code_of("pass")],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (lightning.returncode == 0, lightning.stdout) == (False, "")
    torchrun = env | {"TORCHELASTIC_RUN_ID": "x"}  # which ends its processes itself
    done = subprocess.run(
        [sys.executable, "-c", code_of("pass")],
        env=os.environ | torchrun,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ready\n")


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_within(pid, limit_s):
    until = time.monotonic() + limit_s
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.1)
    return not is_running(pid)
