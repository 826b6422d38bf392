"""Draw the weights of dead units anew (ReDo)."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fluoroscope.diagnostics.head_metrics import ClosedWindow
from fluoroscope.diagnostics.monitor import HeadListener
from fluoroscope.diagnostics.postmortem import PostMortem


class Revive(HeadListener):
    """Draws units anew that were dead throughout every n-th training epoch (ReDo).

    Only those whose activation hardly varied: a tanh unit that saturates on both sides is dead to
    the gradient and yet tells images apart.

    They are drawn as the head was, with the outgoing weights at zero, so that the logits of
    training batches stay as they are (see `Head.reinitialise`), and without a past in the
    optimizer. It happens before the next epoch's first batch: what an epoch's checkpoints hold was
    validated as it is, and the last epoch is followed by nothing. The same units get the same
    weights on every process; the global random state does not move.

    An average of the weights (`WeightAveraging`) goes over to the new rows as to any other
    step: a unit that died lately still works in the average, which a reset would take away.

    | key | when | meaning |
    | --- | --- | --- |
    | `revive/units` | epoch | units that started anew before it |

    Args:
        every_n_epochs: n.
        post_mortem: is informed of the revived units, and records their next death as a new one.
    """

    def __init__(self, every_n_epochs: int, post_mortem: PostMortem | None = None) -> None:
        self.every_n_epochs, self.post_mortem = every_n_epochs, post_mortem
        # What the end of an epoch leaves to the start of the next: dead [D], mean_features [F].
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
            # The share of a window without images is NaN: nothing is known to be dead.
            dead = (closed.gate_open_share == 0) & closed.constant
            self._due = {"dead": dead, "mean_features": closed.mean_features}

    def _revive(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
        """The number of units that started anew."""
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
            units = "unit starts" if count == 1 else "units start"
            print(f"epoch {trainer.current_epoch + 1}: {count} dead {units} anew")
        return count


@torch.no_grad()
def forget(optimizer: torch.optim.Optimizer, head: Any, units: Tensor) -> None:
    """Zero the optimizer's moments of these units `[D]` (bool); its step counts stay."""
    entries: dict[nn.Parameter, Any] = dict.fromkeys(head.norm.parameters(), units)
    entries |= {head.dense.weight: units, head.dense.bias: units}
    entries[head.out.weight] = (slice(None), units)
    for parameter, index in entries.items():
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[index] = 0


def _seed(pl_module: Any, epoch: int) -> int:
    """Of (run, epoch), and of no other draw of theirs: the key keeps the streams apart."""
    sequence = np.random.SeedSequence((pl_module.seed, epoch), spawn_key=(0,))
    return int(sequence.generate_state(1)[0])
