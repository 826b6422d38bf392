"""Files of `torch.export`."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from fluoroscope.export.calibrated_network import Run, runner


def write(program: ExportedProgram, about: Mapping[str, Any], file: Path) -> None:
    """Write one file that `torch.export.load` reads.

    Args:
        about: metadata; each value is stored as JSON, in a file of the archive.
    """
    extra = {key: json.dumps(value) for key, value in about.items()}
    with file.open("wb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tensors that share memory; the file is compared
        torch.export.save(program, stream, extra_files=extra)


def open_file(file: Path) -> Run:
    """The model in a file, run by PyTorch on the CPU."""
    with file.open("rb") as stream:
        return runner(torch.export.load(stream).module())
