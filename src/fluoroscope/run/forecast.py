"""How long a run will take, from the steps it has made."""

import math

from fluoroscope.config.train import Train

MIN_S, LONG_S = 60.0, 3600.0  # a shorter run needs no forecast; a longer one on a CPU needs advice
BACKWARD = 3  # a training step costs a forward pass, and a backward pass of twice its arithmetic


def duration(seconds: float) -> str:
    """Seconds in a unit that reads well.

    >>> duration(42), duration(600), duration(36_000)
    ('42 s', '10 min', '10 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * LONG_S else f"{seconds / 3600:.0f} h"


def forecast(
    cfg: Train, batch_s: float, train_batches: int, val_batches: int, on_cpu: bool
) -> str | None:
    """Time of an epoch and of the run; None if the run is short.

    Args:
        batch_s: seconds per training batch.
        on_cpu: add which keys make a long run short.
    """
    val_s = batch_s if cfg.backbone.frozen else batch_s / BACKWARD
    epoch_s, epochs = train_batches * batch_s + val_batches * val_s, cfg.trainer.max_epochs
    if math.isnan(batch_s) or epochs * epoch_s < MIN_S:
        return None
    times = f"about {duration(epoch_s)} per epoch, {duration(epochs * epoch_s)} for {epochs} epochs"
    keys = faster_keys(cfg)
    if not on_cpu or epochs * epoch_s < LONG_S or not keys:
        return times
    return f"{times} on this CPU; {' or '.join(keys)} takes a small part of that"


def faster_keys(cfg: Train) -> list[str]:
    """Keys that make a run on a CPU shorter; none if all of them are set."""
    keys = [] if "lite0" in cfg.backbone.name else ["backbone=lite0"]
    if cfg.data.features == "live":
        keys.append("backbone.frozen=true data.augment=[] data.features=cached")
    return keys
