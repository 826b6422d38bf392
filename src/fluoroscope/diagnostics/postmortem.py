"""Record why units of the head died: the terms of their pre-activation, and which one fell."""

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from fluoroscope.diagnostics.death_causes import NEVER, describe
from fluoroscope.diagnostics.head_metrics import ClosedWindow, HeadMetrics
from fluoroscope.diagnostics.media import send
from fluoroscope.diagnostics.monitor import HeadListener

FILE = "postmortem.csv"
OF_STEP = ("step", "lr", "grad_row_l2", "positives_frac")
Row = dict[str, Any]


class PostMortem(HeadListener):
    """Records each unit of the head that a validation finds dead and the previous one did not.

    Each death is a row of `postmortem.csv` in the run folder, written after the validation. A death
    lasts until a validation finds the unit open, or until it is re-initialised; without either, to
    the end of the run. At the end of the fit the rows are logged to W&B as the table `postmortem`.

    | column | meaning |
    | --- | --- |
    | `epoch` | epoch whose validation found the unit dead, from 1 |
    | `unit` | row of the unit in `head.dense.weight` |
    | `step` | last step at which a training image opened the unit, see below; -1 if none did |
    | `lr` | learning rate of the head at that step |
    | `bias` | bias b of the unit at the validation of `epoch`, as all terms that follow |
    | `wf_mean` | mean of w.f over the validation images; mean z is `bias + wf_mean` |
    | `wf_birth` | w0.mean(f) at the unit's birth, from its initial weights w0 |
    | `wf_moved` | change of that term, because the features moved: w0.(mean(f) now - then) |
    | `wf_pushed` | change of mean z by training the weights: (w - w0).mean(f) |
    | `wf_rest_max` | largest w.(f - mean(f)) of an image, the part that images do not share |
    | `grad_row_l2` | norm of the last gradient of the unit's weights that was not zero |
    | `positives_frac` | share of positives among the known labels in the batch of that step |
    | `cause` | term that fell most since birth, see below |

    The unit's largest pre-activation in the validation is `bias + wf_birth + wf_moved + wf_pushed +
    wf_rest_max`. `cause` names the term that fell most since birth: `common_direction`
    (`wf_pushed`), `bias` or `features` (`wf_moved`). It is `other` if none fell, for example if
    the activation saturates at large z, and `never_open` if no training image opened the unit.
    A training image may open a unit that is closed on all validation images. Therefore each
    validation that still finds the unit dead renews `step`, `lr`, `grad_row_l2` and
    `positives_frac`: from `step` + 1 to the last of these validations, no training image opened the
    unit.
    Birth is the first optimizer step or, for a revived unit, its revival. If a norm precedes the
    activation, `bias` is the norm's, the rest of mean z counts as `wf_pushed`, and `step` is nearly
    always the last step: batch norm opens each unit on some image of nearly every training batch.

    Numbers cover all processes. Nothing waits for the device before the end of a validation.

    Args:
        folder: run folder; None writes no file.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        self._units: dict[str, Tensor] = {}  # values per unit, for future rows
        self._steps: dict[int, tuple[float, Tensor]] = {}  # learning rate and label counts
        self._first: Tensor | None = None  # sum and number of the first step's features

    def state_dict(self) -> dict[str, Any]:
        units = {name: values.cpu() for name, values in self._units.items()}
        return {"rows": self.rows, "units": units}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._units = state_dict["rows"], state_dict["units"]

    def window_state(self) -> dict[str, Any]:
        """State of this process in the current epoch."""
        counts = [n for _, n in self._steps.values()]
        return {
            "last_open": self._units["last_open"].cpu(),
            "rates": {step: rate for step, (rate, _) in self._steps.items()},
            # Stacked, since a file with one tensor per step is slow to write.
            "counts": torch.stack(counts).cpu() if counts else [],
            "first": None if self._first is None else self._first.cpu(),
        }

    def load_window_state(self, state: dict[str, Any]) -> None:
        """Continue the epoch from this state in the next fit."""
        self._units["last_open"] = state["last_open"]
        steps = zip(state["rates"].items(), state["counts"], strict=True)
        self._steps = {step: (rate, n) for (step, rate), n in steps}
        self._first = state["first"]

    def on_head_start(self, metrics: HeadMetrics) -> None:
        self._metrics = metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        device = pl_module.device
        units = self._units or _unborn(pl_module.head)
        self._units = {name: values.to(device) for name, values in units.items()}
        self._steps = {step: (rate, n.to(device)) for step, (rate, n) in self._steps.items()}
        self._first = None if self._first is None else self._first.to(device)
        if trainer.is_global_zero:
            self._write()  # after a resume, the file may hold rows newer than the checkpoint

    def start_anew(self, units: Tensor, head: Any, mean_features: Tensor) -> None:
        """Record a new birth of units `[D]` (bool), at these `mean_features` `[F]`."""
        birth = _unborn(head)
        birth["wf_birth"] = birth["weight"].double() @ mean_features
        for name, values in self._units.items():
            index = units[:, None] if values.ndim == 2 else units
            self._units[name] = torch.where(index, birth[name], values)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        target, step = batch["target"], trainer.global_step
        counts = torch.stack([(target > 0.5).sum(), (~target.isnan()).sum()])
        if step in self._steps:  # a further batch of an accumulated gradient
            counts = counts + self._steps[step][1]
        self._steps[step] = (_head_lr(trainer, pl_module.head), counts)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        last, opened = self._units["last_open"], self._metrics.census["train"].opened
        self._units["last_open"] = torch.where(opened, trainer.global_step, last)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        grad = pl_module.head.dense.weight.grad  # type: ignore[union-attr]
        if trainer.global_step == 0:
            features = self._metrics.features["train"]
            self._first = torch.cat([features.total, features.images[None].double()])
        if grad is not None:
            l2, last = torch.linalg.vector_norm(grad, dim=1), self._units["grad_row_l2"]
            self._units["grad_row_l2"] = torch.where(l2 > 0, l2, last)

    def on_head_window(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, closed: ClosedWindow
    ) -> None:
        if closed.name != "val":
            return
        self._settle_birth(trainer)
        self._settle(trainer)
        before, self._units["dead"] = self._units["dead"], closed.dead
        dead = closed.dead.nonzero().flatten().tolist()
        if not dead:
            return
        columns, rows = self._columns(pl_module.head, closed), {r["unit"]: r for r in self.rows}
        for unit, known in zip(dead, before[dead].tolist(), strict=True):
            if known and unit in rows:
                _renew(rows[unit], columns)
            else:
                self.rows.append(_row(trainer.current_epoch + 1, unit, columns))
        if trainer.is_global_zero:
            self._write()

    def _settle_birth(self, trainer: pl.Trainer) -> None:
        if self._first is not None:
            sums = trainer.strategy.reduce(self._first, reduce_op="sum")
            self._units["wf_birth"] = self._units["weight"].double() @ (sums[:-1] / sums[-1])
            self._first = None

    def _settle(self, trainer: pl.Trainer) -> None:
        """Look up learning rate and labels of the step at which each unit was last open."""
        units = self._units
        units["last_open"] = trainer.strategy.reduce(units["last_open"], reduce_op="max")
        if not self._steps:
            return
        last = units["last_open"]
        rates = [rate for rate, _ in self._steps.values()]
        counts = torch.stack([count for _, count in self._steps.values()])
        counts = trainer.strategy.reduce(counts, reduce_op="sum")
        found = {
            "lr": last.new_tensor(rates, dtype=torch.float64),
            "positives_frac": counts[:, 0].double() / counts[:, 1],
        }
        steps = last.new_tensor(list(self._steps))
        place = torch.searchsorted(steps, last).clamp(max=len(steps) - 1)
        for name, values in found.items():
            units[name] = torch.where(steps[place] == last, values[place], units[name])
        self._steps.clear()

    def _columns(self, head: Any, closed: ClosedWindow) -> dict[str, list[float]]:
        """The values of the rows, per unit of the head."""
        units, bias, mean_f = self._units, _bias(head).double(), closed.mean_features
        wf_mean = closed.z_mean - bias
        wf_birth, wf_now = units["wf_birth"], units["weight"].double() @ mean_f
        if _norm_first(head):
            wf_birth = wf_now = torch.zeros_like(bias)
        columns = {
            "step": units["last_open"],
            "lr": units["lr"],
            "bias": bias,
            "wf_mean": wf_mean,
            "wf_birth": wf_birth,
            "wf_moved": wf_now - wf_birth,
            "wf_pushed": wf_mean - wf_now,
            "wf_rest_max": closed.z_max - closed.z_mean,
            "grad_row_l2": units["grad_row_l2"],
            "positives_frac": units["positives_frac"],
            "born_bias": units["bias"],
        }
        return {name: values.tolist() for name, values in columns.items()}

    def _write(self) -> None:
        if self.folder is None:
            return
        if not self.rows:
            (self.folder / FILE).unlink(missing_ok=True)
        else:
            with (self.folder / FILE).open("w", newline="") as file:
                writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.rows:
            columns, rows = list(self.rows[0]), [list(row.values()) for row in self.rows]
            send(
                trainer,
                f"the table of {FILE}",
                lambda logger: logger.log_table("postmortem", columns, rows),
            )

    def summary(self) -> str:
        """One line on when and why the units that are dead now died; see `describe`."""
        dead = self._units["dead"].tolist()
        line = describe([row for row in self.rows if dead[row["unit"]]], len(dead))
        again = len({row["unit"] for row in self.rows if not dead[row["unit"]]})
        return f"{line}; {again} of {len(dead)} units died and recovered" if again else line


def _unborn(head: Any) -> dict[str, Tensor]:
    bias = _bias(head)
    nan = torch.full_like(bias, float("nan"), dtype=torch.float64)
    return {
        "weight": head.dense.weight.detach().clone(),
        "bias": bias.clone(),
        "wf_birth": nan,
        "last_open": torch.full_like(bias, NEVER, dtype=torch.long),
        "lr": nan,
        "positives_frac": nan,
        "grad_row_l2": torch.zeros_like(bias),
        "dead": torch.zeros_like(bias, dtype=torch.bool),
    }


def _norm_first(head: Any) -> bool:
    return head.order == "norm-activation" and getattr(head.norm, "bias", None) is not None


def _bias(head: Any) -> Tensor:
    """The last bias before the activation, `[D]`."""
    return (head.norm if _norm_first(head) else head.dense).bias.detach()


def _head_lr(trainer: pl.Trainer, head: Any) -> float:
    """Learning rate of the parameter group, at any position, that holds the units' weights."""
    groups = trainer.optimizers[0].param_groups
    return next(g["lr"] for g in groups if any(p is head.dense.weight for p in g["params"]))


def _row(epoch: int, unit: int, columns: dict[str, list[float]]) -> Row:
    row: Row = {"epoch": epoch, "unit": unit}
    row |= {name: values[unit] for name, values in columns.items() if name != "born_bias"}
    return {**row, "cause": _cause(row, columns["born_bias"][unit])}


def _renew(row: Row, columns: dict[str, list[float]]) -> None:
    """Update what belongs to the last step at which the unit was open."""
    row |= {name: columns[name][row["unit"]] for name in OF_STEP}
    row["cause"] = _cause(row, columns["born_bias"][row["unit"]])


def _cause(row: Row, born_bias: float) -> str:
    if row["step"] == NEVER:
        return "never_open"
    fell = {
        "common_direction": -row["wf_pushed"],
        "bias": born_bias - row["bias"],
        "features": -row["wf_moved"],
    }
    cause = max(fell, key=lambda name: fell[name])
    return cause if fell[cause] > 0 else "other"
