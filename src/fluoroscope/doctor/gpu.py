"""PyTorch and the GPU: whether it can be used, and computes."""

import ctypes
import re
from pathlib import Path
from typing import Any

from fluoroscope.config.train import Trainer
from fluoroscope.doctor.check import BAD, NOTE, OK, Found, describe
from fluoroscope.launch.launch_check import one_device

GIB = 2**30
SIDE = 256  # of the matrices that each GPU multiplies
NVIDIA = Path("/proc/driver/nvidia/version")


def pytorch() -> Found:
    import torch

    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return Found(OK, f"{torch.__version__}, built {built}")


def gpu(trainer: Trainer) -> Found:
    import torch

    if torch.cuda.is_available():
        return _cuda(torch, trainer)
    if torch.backends.mps.is_available():
        return Found(OK, "Apple's GPU")
    return _none(torch, trainer)


def _cuda(torch: Any, trainer: Trainer) -> Found:
    count = torch.cuda.device_count()
    texts = [_describe_gpu(torch, index) for index in range(count)]
    for index in range(count):
        try:
            _multiply(torch, index)
        except Exception as error:  # of CUDA
            return Found(
                BAD,
                f"{texts[index]} does not compute: {describe(error)}",
                "install a PyTorch that is built for this GPU and its driver",
            )
    wanted = trainer.devices if isinstance(trainer.devices, int) else 1
    text = f"{_counted(texts)}, driver {driver() or 'unknown'}"
    if wanted > count:
        return Found(BAD, text, f"set trainer.devices={count}; {wanted} were asked for")
    return Found(OK, text)


def _describe_gpu(torch: Any, index: int) -> str:
    free, total = torch.cuda.mem_get_info(index)
    name = torch.cuda.get_device_name(index)
    return f"{name} with {free / GIB:.0f} of {total / GIB:.0f} GiB free"


def _counted(texts: list[str]) -> str:
    return ", ".join(f"{texts.count(text)} x {text}" for text in dict.fromkeys(texts))


def _multiply(torch: Any, index: int) -> None:
    ones = torch.ones(SIDE, SIDE, device=f"cuda:{index}")
    if (ones @ ones).sum().item() != SIDE**3:
        raise ArithmeticError("a product of two matrices is wrong")


def _none(torch: Any, trainer: Trainer) -> Found:
    """Why there is no GPU: PyTorch cannot use the one that is there, or there is none."""
    if driver() or driver_cuda():
        return Found(BAD, f"driver {driver() or 'unknown'}, but no GPU for PyTorch", _remedy(torch))
    if trainer.accelerator in ("gpu", "cuda"):
        keys = one_device(trainer).removeprefix("; ")
        return Found(BAD, f"none, but trainer.accelerator={trainer.accelerator}", keys)
    return Found(NOTE, "none: runs train on the CPU", "add backbone=lite0, a network for CPUs")


def _remedy(torch: Any) -> str:
    built, supported = torch.version.cuda, driver_cuda()
    if built is None:
        return "install PyTorch with CUDA; this one was built for CPUs"
    if supported and supported < tuple(map(int, built.split("."))):
        newest = ".".join(map(str, supported))
        return f"update the driver, which supports CUDA {newest}; PyTorch was built for {built}"
    return "check that this container or job may use the GPU (docker run --gpus all)"


def driver() -> str | None:
    """Version of NVIDIA's driver, such as 580.65.06."""
    found = re.search(r"Module\s.*?(\d+\.[\d.]+)", NVIDIA.read_text() if NVIDIA.exists() else "")
    return found[1] if found else None


def driver_cuda() -> tuple[int, ...] | None:
    """The newest CUDA that the driver supports, such as (13, 0)."""
    number = ctypes.c_int()
    try:
        code = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if code else (number.value // 1000, number.value % 1000 // 10)
