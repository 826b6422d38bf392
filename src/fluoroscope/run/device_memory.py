"""Running out of the device's memory, in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fluoroscope.config.train import Train
from fluoroscope.errors import InputError


@contextmanager
def explain_out_of_memory(cfg: Train) -> Iterator[None]:
    """Name the keys that need less memory.

    Raises:
        InputError: the GPU has no memory left.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        keys = ["backbone.grad_checkpointing=true"]
        if half := cfg.data.batch_size // 2:
            twice = 2 * cfg.trainer.accumulate_grad_batches  # as many images per step
            keys.insert(0, f"data.batch_size={half} trainer.accumulate_grad_batches={twice}")
        raise InputError(
            f"the GPU's memory is too small for data.batch_size={cfg.data.batch_size} at "
            f"{cfg.data.image_px} px; set {', or '.join(keys)}"
        ) from error
