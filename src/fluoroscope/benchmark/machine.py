"""What a measurement was taken on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fluoroscope.launch.process_setup import cores

PACKAGES = ("torch", "pytorch-lightning", "timm", "wandb", "numpy")


def machine(device: torch.device) -> dict[str, Any]:
    """Names of the processors, cores and threads this process may use, load of all its users."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": _cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")  # elsewhere `platform` knows the name
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
