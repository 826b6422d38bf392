"""A real SLURM of two nodes on this machine, from Debian's packages slurm-wlm and munge.

Needs root, and writes nothing outside its own folder but one line of /etc/hosts, which it removes.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES, CPUS, GPUS = ("xray1", "xray2"), 4, 2
HOSTS = Path("/etc/hosts")
TEMPLATE = Path(__file__).with_name("slurm.conf.in")


def _lacking() -> str | None:
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge"
    return "the daemons of SLURM need root" if os.geteuid() else None


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"


LACKING = _lacking()
needs_slurm = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


class Lab:
    """A running cluster; `environ` is for the processes that talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
        self.environ |= {"OMP_NUM_THREADS": "1"}

    def ask(self, *command: object, cwd: Path | None = None, **env: str) -> str:
        """What a command of SLURM prints; it must succeed."""
        done = self.run(*command, cwd=cwd, **env)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def run(self, *command: object, cwd: Path | None = None, **env: str):
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env={**self.environ, **env},
        )

    def job(self, job: str) -> dict[str, str]:
        """What SLURM says of a job, such as `JobState`, `Restarts` and `ExitCode`."""
        told = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(re.findall(r"(\w+)=(\S*)", told))

    def finish(self, job: str, limit_s: float = 150) -> dict[str, str]:
        """Wait until the job, or each of an array, has left the queue."""
        until = time.monotonic() + limit_s
        while told := self.ask("squeue", "--noheader", "--jobs", job):
            assert time.monotonic() < until, told
            time.sleep(0.2)
        return self.job(job)

    def start(self) -> None:
        self._configure()
        munge = [f"--key-file={self.folder}/munge.key", f"--socket={self.folder}/munge.socket"]
        munge += [f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log"]
        self.ask("munged", "--force", "--num-threads=2", f"--seed-file={self.folder}/seed", *munge)
        self.ask("slurmctld", "-c")
        for node in NODES:
            self.ask("slurmd", "-N", node)
        until = time.monotonic() + 60
        while self.run("sinfo", "-h", "-N", "-o", "%T").stdout.split() != ["idle"] * len(NODES):
            logs = [path.read_text()[-2000:] for path in self.folder.glob("*.log")]
            assert time.monotonic() < until, "\n".join(logs)
            time.sleep(0.1)

    def _configure(self) -> None:
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host, ports = socket.gethostname().partition(".")[0], free_ports(1 + len(NODES))
        gpus = [self.folder / f"nvidia{gpu}" for gpu in range(GPUS)]
        for gpu, path in enumerate(gpus):  # no driver: slurmd looks at the node alone
            os.mknod(path, 0o600 | 0o020000, os.makedev(195, gpu))
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
            f"RealMemory=1000 Gres=gpu:{GPUS} State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        ]
        text = TEMPLATE.read_text()
        words = {"HOST": host, "PORT": str(ports[0]), "LAB": str(self.folder)}
        for word, value in {**words, "NODES": "\n".join(nodes)}.items():
            text = text.replace(f"@{word}@", value)
        (self.folder / "slurm.conf").write_text(text)
        files = f"{self.folder}/nvidia[0-{GPUS - 1}]"
        gres = [f"NodeName={node} Name=gpu Flags=nvidia_gpu_env File={files}" for node in NODES]
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")

    def stop(self) -> None:
        """End the jobs and the daemons, and only those."""
        until = time.monotonic() + 30
        while self.run("squeue", "-h").stdout.strip() and time.monotonic() < until:
            self.run("scancel", "--user=root")  # again: one may have put itself back in the queue
            time.sleep(0.5)
        daemons = [path for path in self.folder.glob("*.pid") if path.name != "munged.pid"]
        end([int(path.read_text()) for path in daemons])
        end([int(path.read_text()) for path in self.folder.glob("munged.pid")])


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end(pids: list[int], limit_s: float = 15) -> None:
    """Ask the processes to end, and kill those that do not."""
    for pid in pids:
        send(pid, signal.SIGTERM)
    until = time.monotonic() + limit_s
    while any(send(pid, 0) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in pids:
        send(pid, signal.SIGKILL)


def send(pid: int, signum: int) -> bool:
    """Whether the process was still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
        return True
    return False


@contextmanager
def names_of_nodes():
    """The nodes' names in /etc/hosts: the first one is where the processes of a job meet."""
    line = f"127.0.0.1 {' '.join(NODES)} # tests of fluoroscope\n"
    HOSTS.write_text(HOSTS.read_text() + line)
    try:
        yield
    finally:
        HOSTS.write_text(HOSTS.read_text().replace(line, "", 1))


@contextmanager
def cluster(folder: Path):
    """A `Lab` in an empty folder, whose path should be short."""
    lab = Lab(folder)
    with names_of_nodes():
        try:
            lab.start()
            yield lab
        finally:
            lab.stop()
