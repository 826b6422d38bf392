"""Python, memory, cores, shared memory and disk."""

import math
import os
import platform
import shutil
import sys
from pathlib import Path

from fluoroscope.config.train import Train
from fluoroscope.data.prefetch import available_cores
from fluoroscope.doctor.check import BAD, NOTE, OK, Found
from fluoroscope.launch.process_setup import cores

GIB = 2**30
LEAST_MEMORY_GIB, ENOUGH_MEMORY_GIB = 2, 8
LEAST_DISK_GIB, ENOUGH_DISK_GIB = 1, 10
MEMINFO, SHARED = Path("/proc/meminfo"), Path("/dev/shm")
CGROUP = Path("/sys/fs/cgroup")
BATCHES = 3  # of a loader process: two that are ready, and the one it works on


def python() -> Found:
    text = f"{platform.python_version()}, {_system()} on {platform.machine()}"
    if sys.platform in ("linux", "darwin"):
        return Found(OK, text)
    return Found(NOTE, text, "the tests run on Linux; use WSL 2 on Windows")


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def memory() -> Found:
    """Free memory of the machine, within the limit of a container."""
    total, free = _memory_gib()
    limit = _limit("memory.max")
    if limit is not None:
        used = _limit("memory.current") or 0
        total, free = min(total, limit / GIB), min(free, (limit - used) / GIB)
    text = f"{free:.1f} GiB free of {total:.1f} GiB"
    advice = "end other programs, or lower data.num_workers and data.batch_size"
    if free < LEAST_MEMORY_GIB:
        return Found(BAD, text, advice)
    return Found(NOTE, text, advice) if free < ENOUGH_MEMORY_GIB else Found(OK, text)


def _memory_gib() -> tuple[float, float]:
    if MEMINFO.exists():
        rows = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        kib = [int(rows[name].split()[0]) for name in ("MemTotal", "MemAvailable")]
        return kib[0] / 2**20, kib[1] / 2**20
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return total, total


def _limit(name: str, place: int = 0) -> int | None:
    """A number of the container that this process runs in."""
    try:
        return int((CGROUP / name).read_text().split()[place])
    except (OSError, ValueError, IndexError):  # no container, or `max`
        return None


def processor() -> Found:
    usable, quota = cores(), _quota()
    if quota is not None and quota < usable:
        whole = max(1, math.floor(quota))
        return Found(
            NOTE,
            f"{usable} cores, of which the container may use {quota:g}",
            f"set data.num_workers={whole}, since each core would get a loader process",
        )
    state = OK if usable > 1 else NOTE
    return Found(state, f"{usable} core{'s' * (usable != 1)}")


def _quota() -> float | None:
    """The cores' worth of time that a container may use."""
    limit, period = _limit("cpu.max"), _limit("cpu.max", 1)
    return limit / period if limit is not None and period else None


def shared_memory(cfg: Train, processes: int = 1) -> Found:
    """Whether the batches of all loader processes have room in `/dev/shm`."""
    if not SHARED.is_dir():
        return Found(OK, "not used by this system")
    workers = cfg.data.num_workers
    if workers is None:
        workers = available_cores(processes)
    batch = cfg.data.batch_size * cfg.data.image_px**2
    need, free = processes * workers * BATCHES * batch / GIB, shutil.disk_usage(SHARED).free / GIB
    text = f"{free:.2f} GiB free; {workers} loader processes need up to {need:.2f} GiB"
    if free >= need:
        return Found(OK, text)
    size = math.ceil(need) + 1
    advice = f"set data.num_workers=0, or enlarge it (docker run --shm-size={size}g)"
    return Found(BAD, text, advice)


def disk(folder: Path) -> Found:
    """Room for the run folder, and the right to write there."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Found(BAD, "the run folder cannot be written", "set run.dir to another folder")
    free = shutil.disk_usage(place).free / GIB
    text = f"{free:.1f} GiB free where the run folder will be"
    advice = "free disk space, or set run.dir to another disk"
    if free < LEAST_DISK_GIB:
        return Found(BAD, text, advice)
    return Found(NOTE, text, advice) if free < ENOUGH_DISK_GIB else Found(OK, text)
