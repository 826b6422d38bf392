"""Where the time of a fit goes: Lightning's profilers, written into the run folder."""

from pathlib import Path

from pytorch_lightning import profilers

from fluoroscope.console import short_path
from fluoroscope.launch.process_setup import is_first_process

KINDS = {
    "simple": profilers.SimpleProfiler,
    "advanced": profilers.AdvancedProfiler,
    "pytorch": profilers.PyTorchProfiler,
}


def make_profiler(name: str, folder: Path) -> profilers.Profiler:
    """The profiler of `trainer.profiler`, which writes `fit-profile.txt` and says so.

    Each process writes its own file; `pytorch` also writes a trace that browsers show.
    """
    if is_first_process():
        print(f"profile of the fit, at its end: {short_path(folder)}/fit-profile.txt")
    return KINDS[name](dirpath=folder, filename="profile")
