"""Settings of a training process that must come before any heavy import."""

import ctypes
import logging
import os
import signal
import sys
import warnings

from fluoroscope.launch import stopping

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def prepare() -> None:
    """Set up this process and its children; variables that the user has set are kept."""
    # Signals of a scheduler are held back until a run listens, see `preemption`.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
    stopping.listen()
    # With this documented variable Hydra raises its errors instead of printing them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # Threads that spin while they wait take the cores from the loader's workers: on two shared
    # cores a training step was five times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _keep_freed_memory()


def end_with_reader() -> None:
    """End without an error if the reader of the output ends first, as in `--help | head`."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def quiet_lightning() -> None:
    """Silence Lightning's advice on workers and loggers, which hides what a user should read.

    Call it after Lightning is imported, since the import resets its loggers.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    topics = "many workers|sync_dist=True|srun|in eval mode|before the epoch ended|logging interval"
    warnings.filterwarnings("ignore", message=f".*({topics}).*")


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_first_process() -> bool:
    """Whether this is the first process of its run, by the variables of torchrun, Lightning, srun.

    It alone writes the run folder and the terminal.
    """
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((os.environ[name] for name in ranks if name in os.environ), "0") == "0"


def _keep_freed_memory() -> None:
    """Let malloc keep freed memory: by default each large tensor goes back to the kernel, and the
    next one is cleared page by page. Keeping the pages made a forward pass twice as fast.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # glibc has it, musl does not
        libc.mallopt(M_MMAP_MAX, 0)  # type: ignore[union-attr]
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # type: ignore[union-attr]
