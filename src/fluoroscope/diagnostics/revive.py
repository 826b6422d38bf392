"""Re-initialise units that learn nothing during training (ReDo; by the gradient, ReGraMa)."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fluoroscope.diagnostics.gradients import GRAD_DORMANT
from fluoroscope.diagnostics.head_metrics import ClosedWindow
from fluoroscope.diagnostics.monitor import HeadListener
from fluoroscope.diagnostics.postmortem import PostMortem
from fluoroscope.errors import plural


class Revive(HeadListener):
    """Re-initialises the units that learned nothing throughout every n-th training epoch.

    By the gate these are the dead units. It leaves out units whose activation varied: a tanh unit
    that saturates on both sides passes no gradient, but still distinguishes images. By the gradient
    these are also the units whose score is at most 0.01 (`gradients.UnitGradient`), open or not.

    Incoming weights are drawn as for a new head. Outgoing weights are set to zero, so the logits of
    training batches do not change for dead units, and little for others (see `Head.reinitialise`).
    The optimizer's moments are set to zero. This happens before the first batch of the next epoch:
    every checkpoint holds the weights that were validated, and nothing happens after the last
    epoch. All processes draw the same weights, and the global random state does not change.

    An average of the weights (`WeightAveraging`) follows this change like any other step. A unit
    that died recently still works in the average, and a reset would remove it.

    | key | when | meaning |
    | --- | --- | --- |
    | `revive/units` | epoch | number of units re-initialised before the epoch |

    Args:
        every_n_epochs: n.
        post_mortem: receives the revived units, and records their next death as a new one.
        by: `gate` or `gradient`.

    Source: G. Sokar et al. 2023 (ReDo); J. Liu et al. 2025 (ReGraMa, arXiv:2505.24061).
    """

    def __init__(
        self, every_n_epochs: int, post_mortem: PostMortem | None = None, by: str = "gate"
    ) -> None:
        self.every_n_epochs, self.post_mortem, self.by = every_n_epochs, post_mortem, by
        # From the end of an epoch to the start of the next: dead [D], mean_features [F].
        self._due: dict[str, Tensor] = {}
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        due = {name: value.cpu() for name, value in self._due.items()}
        return {"due": due, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._due, self._count = state_dict["due"], state_dict["count"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count = self._revive(trainer, pl_module) if self._due else 0
        self._due = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("revive/units", float(self._count), on_step=False, on_epoch=True)

    def on_head_window(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, closed: ClosedWindow
    ) -> None:
        if closed.name == "train" and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            # In a window without images the share is NaN, so no unit counts as dead.
            dead = (closed.gate_open_share == 0) & closed.constant
            if self.by == "gradient" and closed.grad_score is not None:
                dead |= closed.grad_score <= GRAD_DORMANT  # no unit without any gradient: it is NaN
            self._due = {"dead": dead, "mean_features": closed.mean_features}

    def _revive(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
        """Re-initialise the dead units; return their number."""
        dead, mean = (self._due[name].to(pl_module.device) for name in ("dead", "mean_features"))
        count = int(dead.sum())
        if count == 0:
            return 0
        head: Any = pl_module.head
        head.reinitialise(dead, mean, _seed(pl_module, trainer.current_epoch))
        for optimizer in trainer.optimizers:
            forget(optimizer, head, dead)
        if self.post_mortem is not None:
            self.post_mortem.start_anew(dead, head, mean)
        if trainer.is_global_zero:
            units = plural(count, "dead unit" if self.by == "gate" else "dormant unit")
            print(f"epoch {trainer.current_epoch + 1}: {units} re-initialised")
        return count


@torch.no_grad()
def forget(optimizer: torch.optim.Optimizer, head: Any, units: Tensor) -> None:
    """Zero the optimizer's moments of these units `[D]` (bool), but not its step counts."""
    entries: dict[nn.Parameter, Any] = dict.fromkeys(head.norm.parameters(), units)
    entries |= {head.dense.weight: units, head.dense.bias: units}
    entries[head.out.weight] = (slice(None), units)
    for parameter, index in entries.items():
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[index] = 0


def _seed(pl_module: Any, epoch: int) -> int:
    """Seed of the run and epoch; `spawn_key` separates it from their other random streams."""
    sequence = np.random.SeedSequence((pl_module.seed, epoch), spawn_key=(0,))
    return int(sequence.generate_state(1)[0])
