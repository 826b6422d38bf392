"""Processes that start within a tenth of a second: forked from one that has imported everything.

A command spends eight seconds of processor time on its imports. The server, one for all processes
that run tests, spends them once; it runs no thread and no test, so that what it forks is as new.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import os
import pickle
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NoReturn

import fluoroscope

ROOT = Path(__file__).parents[2]
# A library reads them when it is imported: with other values a process has to start by itself.
FIXED = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "HF_HUB_OFFLINE": "1",
}
REQUEST_BYTES = 2**20


class Forked:
    """A running call in a process and session of its own, used as `subprocess.Popen` is."""

    def __init__(
        self, call: Callable[[], Any], cwd: Path, env: dict[str, str] | None = None
    ) -> None:
        env = FIXED | (env or dict(os.environ))
        assert FIXED.items() <= env.items(), "start it cold"
        pipes = [os.pipe() for _ in range(3)]
        ends = [write for _, write in pipes]
        server = _server()
        socket.send_fds(server, [pickle.dumps((call, str(cwd), env))], ends)
        for end in ends:
            os.close(end)
        self.pid = int.from_bytes(server.recv(8))
        self.returncode: int | None = None
        readers = ThreadPoolExecutor(3)
        self._outputs = [readers.submit(_read, read) for read, _ in pipes]
        readers.shutdown(wait=False)

    def wait(self, timeout: float | None = None) -> int:
        try:
            self.returncode = int(self._outputs[2].result(timeout))
        except TimeoutError:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
        return self.returncode

    def poll(self) -> int | None:
        return self.wait() if self._outputs[2].done() else None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and standard error, once nobody can write to them any more."""
        try:
            out, err, _ = (output.result(timeout) for output in self._outputs)
        except TimeoutError:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
        self.wait()
        return out, err

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_script(path: Path, arguments: list[str]) -> None:
    """As `python PATH ARGUMENTS` does."""
    sys.argv = [str(path), *arguments]
    sys.path[0] = str(path.parent)
    runpy.run_path(str(path), run_name="__main__")


def _read(file: int) -> str:
    with os.fdopen(file) as pipe:
        return pipe.read()


@functools.cache
def _server() -> socket.socket:
    """The connection to the server, which ends when the last connection is closed."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    place = Path(gettempdir()) / f"fluoroscope-tests-{run}"
    place.mkdir(exist_ok=True)
    here = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "server").exists():
            _start_server(place / "server")
        here.connect(str(place / "server"))
    atexit.register(here.close)
    return here


def _start_server(address: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen()
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking", str(listener.fileno())],
            cwd=ROOT,
            env=os.environ | FIXED,
            stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def _serve(listener: socket.socket) -> Callable[[], Any]:
    """Fork for each request and report how each process ends, until all connections are closed.

    Returns:
        In a forked process its call; in the server one that does nothing.
    """
    running: dict[int, tuple[int, int]] = {}  # of each process's file: its id, where it is reported
    connections = [listener.accept()[0]]
    while connections:
        ready, _, _ = select.select([listener, *connections, *running], [], [])
        if listener in ready:
            connections.append(listener.accept()[0])
        for file in set(ready) & set(running):
            pid, report = running.pop(file)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(report, str(code).encode())
            os.close(report)
            os.close(file)
        connection = next((one for one in connections if one in ready), None)
        if connection is None:
            continue
        request, ends, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 3)
        if not request:
            connections.remove(connection)
            continue
        pid = os.fork()
        if pid == 0:
            for inherited in (listener, *connections):
                inherited.close()
            for file in running:
                os.close(file)
                os.close(running[file][1])
            return _become(request, *ends)
        for end in ends[:2]:
            os.close(end)
        running[os.pidfd_open(pid)] = pid, ends[2]
        connection.send(pid.to_bytes(8))
    shutil.rmtree(Path(listener.getsockname()).parent)
    return lambda: None


def _become(request: bytes, out: int, err: int, report: int) -> Callable[[], Any]:
    """Be as new: a session, streams, place, environment and random numbers of its own."""
    import numpy as np
    import torch
    from lightning_fabric.utilities.rank_zero import _get_rank, rank_zero_only

    os.setsid()
    # The server may inherit signals that are blocked, or ignored as in a job in the background.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for end, standard in ((out, 1), (err, 2)):
        os.dup2(end, standard)
        os.close(end)
    os.close(report)
    call, cwd, env = pickle.loads(request)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    rank_zero_only.rank = _get_rank() or 0  # Lightning reads it when it is imported
    np.random.seed()
    torch.seed()
    return call


def _leave_folders() -> None:
    """Those that a library made when it was imported are removed by the server, at its end."""
    made = [found for found in gc.get_objects() if type(found) is TemporaryDirectory]

    def leave() -> None:
        for folder in made:
            atexit.unregister(folder.cleanup)
            folder._finalizer.detach()

    os.register_at_fork(after_in_child=leave)


def _run(call: Callable[[], Any]) -> NoReturn:
    """As the interpreter runs and ends, but that it leaves the modules to the operating system."""
    try:
        call()
        code: Any = None
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


def _main(listener: socket.socket) -> None:
    for module in pkgutil.walk_packages(fluoroscope.__path__, "fluoroscope."):
        importlib.import_module(module.name)
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    # PyArrow's allocator, which knows how to be forked, has one; no other would come along.
    assert len(threads - {"jemalloc_bg_thd"}) == 1, threads
    _leave_folders()
    gc.freeze()  # what is here stays, and need not be looked through
    _run(_serve(listener))


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
