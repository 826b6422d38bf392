"""Why units died: what holds them down where they are found dead, and what pushed them there."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from fluoroscope.diagnostics.head_metrics import ClosedWindow, HeadMetrics
from fluoroscope.diagnostics.media import send
from fluoroscope.diagnostics.monitor import HeadListener

FILE = "postmortem.csv"
NEVER = -1
CAUSES = {
    "common_direction": "the features' common direction",
    "bias": "the bias",
    "features": "features that moved",
    "other": "something else",
}
Row = dict[str, Any]


class PostMortem(HeadListener):
    """A row for each unit of the head that a validation finds dead and the one before did not.

    The rows stand in `postmortem.csv` of the run folder from then on and, as the table
    `postmortem`, in W&B at the end of the fit:

    | column | meaning |
    | --- | --- |
    | `epoch` | whose validation found the unit dead, from 1 |
    | `unit` | its row in `head.dense.weight` |
    | `step` | the optimizer step after which no training image opened it; -1: none ever did |
    | `lr` | learning rate of the head at that step |
    | `bias` | its bias b now |
    | `wf_mean` | mean of w.f over the validation images; mean z is `bias + wf_mean` |
    | `wf_birth` | what the initial weights w0 gave at its birth: w0.mean(f) of those images |
    | `wf_moved` | what w0 gives more today, for the features have moved: w0.(mean(f) now - then) |
    | `wf_pushed` | the part that training added: (w - w0).mean(f) |
    | `wf_rest_max` | how far w.(f - mean(f)), what images do not share, lifts it at most |
    | `grad_row_l2` | norm of the last gradient of its weights that was not zero |
    | `positives_frac` | positive share of the known labels in the batch of that step |
    | `cause` | what pushed it down most since birth, see below |

    `bias + wf_birth + wf_moved + wf_pushed + wf_rest_max` is its largest pre-activation over the
    validation. The cause is what fell most since birth: `common_direction` (`wf_pushed`), `bias`
    or `features` (`wf_moved`); `other` if none fell, as where an activation saturates above;
    `never_open` for a unit that no training image opened. Birth is the first optimizer step, or
    for a revived unit its revival. Where a norm stands before the activation, the bias is the
    norm's, all the rest of mean z counts as pushed, and `step` is nearly always the last one, for
    batch norm opens each unit on some image of nearly every training batch.

    Numbers are of all processes. Nothing waits for the device before the end of a validation.

    Args:
        folder: of the run; None writes no file.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        self._units: dict[str, Tensor] = {}  # per unit, what a row will need
        self._steps: dict[int, tuple[float, Tensor]] = {}  # learning rate and label counts
        self._first: Tensor | None = None  # sum of the first step's features, and their number

    def state_dict(self) -> dict[str, Any]:
        units = {name: values.cpu() for name, values in self._units.items()}
        return {"rows": self.rows, "units": units}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._units = state_dict["rows"], state_dict["units"]

    def window_state(self) -> dict[str, Any]:
        """What this process alone knows of the epoch that is going on."""
        counts = [n for _, n in self._steps.values()]
        return {
            "last_open": self._units["last_open"].cpu(),
            "rates": {step: rate for step, (rate, _) in self._steps.items()},
            # As one: a file with a tensor a step takes long to write in a long epoch.
            "counts": torch.stack(counts).cpu() if counts else [],
            "first": None if self._first is None else self._first.cpu(),
        }

    def load_window_state(self, state: dict[str, Any]) -> None:
        """The next fit continues with this state."""
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
            self._write()  # of a resumed run the file may know more than its checkpoint

    def start_anew(self, units: Tensor, head: Any, mean_features: Tensor) -> None:
        """Units `[D]` (bool) were drawn again, with features of this mean `[F]`: a new birth."""
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
        died = (closed.dead & ~self._units["dead"]).nonzero().flatten().tolist()
        self._units["dead"] = closed.dead
        if died:
            columns = self._columns(pl_module.head, closed)
            epoch = trainer.current_epoch + 1
            self.rows += [_row(epoch, unit, columns) for unit in died]
            if trainer.is_global_zero:
                self._write()

    def _settle_birth(self, trainer: pl.Trainer) -> None:
        if self._first is not None:
            sums = trainer.strategy.reduce(self._first, reduce_op="sum")
            self._units["wf_birth"] = self._units["weight"].double() @ (sums[:-1] / sums[-1])
            self._first = None

    def _settle(self, trainer: pl.Trainer) -> None:
        """Look up the steps since the last validation at which units were last open."""
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
            "bias_fell": units["bias"] - bias,
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
        """In one line which of the units that are dead now died when and why; see `tell`."""
        dead = self._units["dead"].tolist()
        line = tell([row for row in self.rows if dead[row["unit"]]], len(dead))
        again = len({row["unit"] for row in self.rows if not dead[row["unit"]]})
        return f"{line}; {again} more were dead for a while" if again else line


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
    """What is added last before the activation, `[D]`."""
    return (head.norm if _norm_first(head) else head.dense).bias.detach()


def _head_lr(trainer: pl.Trainer, head: Any) -> float:
    """Learning rate of the group that holds the units' weights; the order of groups is not ours."""
    groups = trainer.optimizers[0].param_groups
    return next(g["lr"] for g in groups if any(p is head.dense.weight for p in g["params"]))


def _row(epoch: int, unit: int, columns: dict[str, list[float]]) -> Row:
    row: Row = {"epoch": epoch, "unit": unit}
    row |= {name: values[unit] for name, values in columns.items()}
    fell = {
        "common_direction": -row["wf_pushed"],
        "bias": row.pop("bias_fell"),
        "features": -row["wf_moved"],
    }
    cause = max(fell, key=lambda name: fell[name])
    if fell[cause] <= 0:
        cause = "other"
    if row["step"] == NEVER:
        cause = "never_open"
    return {**row, "cause": cause}


def tell(rows: list[Row], width: int) -> str:
    """Which of `width` units died, when and why, for a person.

    >>> row = {"unit": 0, "step": 39, "lr": 0.01, "cause": "common_direction"}
    >>> tell([row, {**row, "unit": 5, "step": 7}], 896)  # doctest: +NORMALIZE_WHITESPACE
    "2 of 896 units died, nine in ten by step 40, at learning rates up to 0.01: the features'
    common direction, not the bias, pushed them off"
    """
    last = {row["unit"]: row for row in rows}  # of a unit that died twice, the second time
    died = [row for row in last.values() if row["step"] != NEVER]
    unopened = len(last) - len(died)
    also = f"{unopened} of {width} units never opened on a training image"
    if not died:
        return also if unopened else f"none of {width} units died"
    steps = sorted(row["step"] + 1 for row in died)
    by = steps[(9 * len(steps) - 1) // 10]
    line = (
        f"{len(died)} of {width} units died, nine in ten by step {by}, at learning rates up to "
        f"{max(row['lr'] for row in died):.2g}: {_blame(died)}"
    )
    return f"{line}; {also}" if unopened else line


def _blame(died: list[Row]) -> str:
    counts = Counter(row["cause"] for row in died).most_common()
    main, share = counts[0][0], counts[0][1] / len(died)
    if share < 2 / 3:
        return ", ".join(f"{CAUSES[cause]} pushed off {count}" for cause, count in counts)
    other = "the bias" if main == "common_direction" else CAUSES["common_direction"]
    return f"{CAUSES[main]}, not {other}, pushed them off"
