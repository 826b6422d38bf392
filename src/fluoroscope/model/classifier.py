"""The LightningModule: images in, logits out, scores over whole splits."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone
from fluoroscope.model.head import Head
from fluoroscope.model.loss import MaskedLoss
from fluoroscope.model.optimizer import Descent
from fluoroscope.model.scores import GatheredPredictions, Predictions, choose_thresholds, score

Batch = dict[str, Tensor]


class Classifier(pl.LightningModule):
    """Backbone, head and loss, with an optimizer that has other learning rates for each of them.

    Logs `train/loss` per step, and per epoch `val/loss` and `val/{auroc,auprc,...}`, which also
    exist for each label as `val/auroc/LABEL`; the same for `test`. Thresholds are chosen on the
    validation split and stored in the checkpoint.

    Args:
        labels: K names, in the order of the logits.
        descent: the optimizer with its learning rates, and their schedule.
        seed: random state of dropout, set for each batch so that a resumed run draws the same.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        loss: MaskedLoss,
        labels: Sequence[str],
        descent: Descent = Descent(),  # noqa: B008 (it cannot be changed)
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.loss = backbone, head, loss
        self.labels = tuple(labels)
        self.descent, self.seed = descent, seed
        self.thresholds = torch.full((len(self.labels),), 0.5, dtype=torch.float64)
        self.gathered = GatheredPredictions()
        self.counts: Tensor | None = None  # see `run.known_labels`
        # By split, from its last epoch.
        self.predictions: dict[str, Predictions] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.own_scores: Mapping[str, Callable[..., float]] = {}  # see `scores.score`

    def forward(self, image: Tensor) -> Tensor:
        """uint8 `[B, 1, H, W]` to logits `[B, K]`."""
        return self.head(self.backbone(image))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        count, step_count = (None, None) if self.counts is None else self.counts[batch_idx]
        loss = self.loss(self(batch["image"]), batch["target"], step_count)
        logged = loss if count is None else loss.detach() * (step_count / count)
        self.log("train/loss", logged, batch_size=len(batch["target"]), sync_dist=True)
        return loss

    def _evaluation_step(self, batch: Batch, batch_idx: int) -> None:
        # Inference mode is faster than Lightning's `no_grad`, but hooks need ordinary tensors: a
        # watched backbone does without inference mode, and the head gets a copy of the features.
        watched = any(m._forward_pre_hooks or m._forward_hooks for m in self.backbone.modules())
        with nullcontext() if watched else torch.inference_mode():
            features = self.backbone(batch["image"])
        self.gathered.update(batch["index"], self.head(features.clone()), batch["target"])

    validation_step = _evaluation_step
    test_step = _evaluation_step

    def on_validation_epoch_end(self) -> None:
        predictions = self._collect("val")
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.thresholds = choose_thresholds(predictions.probability, predictions.target)
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._collect("test")
        self._log_scores("test")

    def _collect(self, split: str) -> Predictions:
        predictions = self.predictions[split] = self.gathered.compute()
        self.gathered.reset()
        if not predictions.logits.isfinite().all():
            raise InputError(
                f"training diverged: in epoch {self.current_epoch + 1} the {split} logits are not "
                "finite; lower optimizer.lr, or set trainer.gradient_clip_val"
            )
        return predictions

    def _log_scores(self, split: str) -> None:
        """Log the scores of the whole split; every process has all predictions."""
        whole, own = self.predictions[split], self.own_scores
        values = score(whole.probability, whole.target, self.thresholds, self.labels, own)
        loss = self.loss(whole.logits.to(self.device), whole.target.to(self.device))
        values["loss"] = float(loss)
        self.scores[split] = values
        self.log_dict({f"{split}/{key}": value for key, value in values.items()})

    def configure_optimizers(self) -> Any:
        # With 16-mixed, Lightning cannot unscale the gradients of a fused optimizer.
        fused = self.device.type == "cuda" and self.trainer.precision != "16-mixed"
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = self.descent.bind(self.backbone, self.head, steps, fused)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients. Lightning's own method refuses fused optimizers with
        bfloat16, although bfloat16 has no loss scale.
        """
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["thresholds"] = self.thresholds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.thresholds = checkpoint["thresholds"]
