"""The device of a run: which one, in which precision, and when its memory is too small."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fluoroscope.config.train import Train
from fluoroscope.errors import InputError
from fluoroscope.launch.launch_check import no_gpu


def settle_device(cfg: Train) -> None:
    """Resolve `trainer.precision=auto`: bfloat16 on a GPU that computes in it, otherwise float32.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    keys = cfg.trainer
    has_cuda = torch.cuda.is_available()
    wants_cuda = keys.accelerator == "cuda" or (
        keys.accelerator == "gpu" and not torch.backends.mps.is_available()
    )
    if wants_cuda and not has_cuda:
        raise no_gpu(keys)
    if keys.precision == "auto":
        is_gpu = has_cuda and keys.accelerator in ("auto", "gpu", "cuda")
        half = is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        keys.precision = "bf16-mixed" if half else "32-true"


@contextmanager
def explain_out_of_memory(cfg: Train) -> Iterator[None]:
    """Name the keys that need less memory.

    Raises:
        InputError: the GPU has no memory left.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        keys = [] if cfg.backbone.grad_checkpointing else ["backbone.grad_checkpointing=true"]
        if half := cfg.data.batch_size // 2:
            twice = 2 * cfg.trainer.accumulate_grad_batches  # as many images per step
            keys.insert(0, f"data.batch_size={half} trainer.accumulate_grad_batches={twice}")
        raise InputError(
            f"the GPU's memory is too small for data.batch_size={cfg.data.batch_size} at "
            f"{cfg.data.image_px} px; set {', or '.join(keys) or 'a smaller data.image_px'}"
        ) from error
