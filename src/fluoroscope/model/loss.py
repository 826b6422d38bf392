"""The training loss over known labels, and its values that depend on the label's prevalence."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from fluoroscope.choices import LABEL_SMOOTHING, LOSSES, check_focal_gamma, check_pos_weight
from fluoroscope.errors import check_choice


class MaskedLoss(nn.Module):
    """Mean binary loss over the known entries of a batch.

    A target of NaN is unknown; a target between 0 and 1 is soft.

    With smoothing s a target y becomes y(1 - s) + s/2. `bce` is
    -(w y log p + (1 - y) log(1 - p)); `focal` is (1 - p_t)^gamma CE(p, y) (w y + 1 - y) with
    p_t = p y + (1 - p)(1 - y). With hard targets both agree at gamma = 0.

    Args:
        name: bce or focal.
        pos_weight: w [K], the weight of a positive; None is 1.
        label_smoothing: s in [0, 1).
        focal_gamma: 0 or at least 1; used only by focal.

    Raises:
        InputError: an unknown name, or a number out of range.

    Source: T.-Y. Lin et al., Focal Loss for Dense Object Detection (2017), eq. 4.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        name: str = "bce",
        pos_weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
    ) -> None:
        super().__init__()
        check_choice("loss.name", name, LOSSES)
        LABEL_SMOOTHING.check("loss.label_smoothing", label_smoothing)
        check_focal_gamma("loss.focal_gamma", focal_gamma)
        self.name = name
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        # Stored in the checkpoint, so that evaluation on another collection uses these weights.
        self.register_buffer("pos_weight", None if pos_weight is None else pos_weight.float())

    def forward(self, logits: Tensor, target: Tensor, count: Tensor | None = None) -> Tensor:
        """Float32 scalar from logits [B, K]; 0, with a zero gradient, if no entry is known.

        Args:
            count: float32 scalar by which the sum over the known entries is divided; None is their
                number.
        """
        # Selecting by a boolean mask would make the host wait for the device. The inputs are
        # masked, not only the result: the gradient of a masked NaN would be NaN * 0.
        known = ~target.isnan()
        x = torch.where(known, logits.float(), 0.0)
        y = torch.where(known, target.float(), 0.0)
        y = y * (1 - self.label_smoothing) + self.label_smoothing / 2
        per_entry = torch.where(known, self._per_entry(x, y), 0.0)
        return per_entry.sum() / (known.sum().clamp(min=1) if count is None else count)

    def _per_entry(self, x: Tensor, y: Tensor) -> Tensor:
        if self.name == "bce":
            return binary_cross_entropy_with_logits(
                x, y, pos_weight=self.pos_weight, reduction="none"
            )
        loss = sigmoid_focal_loss(x, y, alpha=-1, gamma=self.focal_gamma)
        return loss if self.pos_weight is None else loss * (self.pos_weight * y + 1 - y)


def make_pos_weight(weight: Any, target: Tensor) -> Tensor | None:
    """Weights [K] of positive labels for a value of `loss.pos_weight`.

    Args:
        weight: `auto` (see `balanced_pos_weight`), a number above 0 for every label, or None.
        target: of the training split, [N, K].

    Raises:
        InputError: another value.
    """
    check_pos_weight("loss.pos_weight", weight)
    if weight is None:
        return None
    if weight == "auto":
        return balanced_pos_weight(target)
    return torch.full((target.shape[1],), float(weight))


def balanced_pos_weight(target: Tensor) -> Tensor:
    """Negatives / positives [K] among the known entries of the training split [N, K].

    Both classes then have the same weight in the loss. The value is 1 if a class is absent.
    """
    negatives, positives = (target == 0).sum(0), (target == 1).sum(0)
    both = (negatives > 0) & (positives > 0)
    return torch.where(both, negatives / positives.clamp(min=1), 1.0)


def prior_logit(target: Tensor) -> Tensor:
    """Output bias [K] that starts the model at the prevalence p of the training split [N, K].

    log(p / (1 - p)) over the n known entries of a label, with p clipped to [1/(n+1), n/(n+1)]. This
    changes p only if a class is absent, and gives 0 if no entry is known.

    Source: T.-Y. Lin et al., Focal Loss for Dense Object Detection (2017), section 4.1.
    """
    n = ((target == 0) | (target == 1)).sum(0).double().clamp(min=1)
    p = (target == 1).sum(0) / n
    return torch.logit(p.clamp(1 / (n + 1), n / (n + 1))).float()
