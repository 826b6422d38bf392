"""The classification head whose activation the project is about."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fluoroscope.errors import InputError, check_choice, first_sentence
from fluoroscope.model.activations import make_activation

ORDERS = ("activation-norm", "norm-activation")
NORMS = ("batch", "layer", "none")
INITS = ("keras", "torch", "he")


class Head(nn.Module):
    """`dense -> activation -> norm -> out`: features `[B, F]` to logits `[B, K]`.

    The defaults are Keras's `Dense(896, "relu")`, `BatchNormalization()`, `Dense(K)`:
    glorot-uniform kernels, zero biases, batch norm with epsilon 1e-3 and momentum 0.01 (0.99 as
    Keras counts it). `dense`, `activation`, `norm` and `out` are stable attributes; diagnostics
    tap them. Initial weights depend on the random state alone, not on the activation.

    Args:
        in_features: F, the width of the backbone's features.
        num_labels: K.
        width: D, the number of units.
        activation: a name of `ACTIVATIONS`.
        activation_args: its arguments.
        norm: `batch`, `layer` or `none`.
        norm_momentum: share of a new batch in the running statistics of batch norm.
        order: `activation-norm`, the question's, or `norm-activation`.
        init: of both kernels: `keras` (glorot uniform), `he` (normal, fan-in) or `torch`.
        bias_init: constant for `dense.bias`; None leaves what `init` gives (0, 0, uniform).
        dropout: probability, before `out`.

    Raises:
        InputError: a value that is not among the choices, or out of range.
    """

    def __init__(
        self,
        in_features: int,
        num_labels: int,
        width: int = 896,
        activation: str = "relu",
        activation_args: Mapping[str, Any] | None = None,
        norm: str = "batch",
        norm_momentum: float = 0.01,
        order: str = "activation-norm",
        init: str = "keras",
        bias_init: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("head.norm", norm, NORMS)
        check_choice("head.order", order, ORDERS)
        check_choice("head.init", init, INITS)
        if width < 1:
            raise InputError(f"head.width must be at least 1; got {width}")
        if not 0 <= dropout < 1:
            raise InputError(f"head.dropout must be in [0, 1); got {dropout}")
        if not 0 < norm_momentum <= 1:
            raise InputError(f"head.norm_momentum must be in (0, 1]; got {norm_momentum}")
        self.order = order
        self.dense = nn.Linear(in_features, width)
        self.activation = make_activation(activation, **(activation_args or {}))
        try:
            self.activation(torch.zeros(1, width))
        except (TypeError, RuntimeError) as error:
            reason = first_sentence(error)
            raise InputError(f"head.activation_args of {activation}: {reason}") from None
        self.norm = _make_norm(norm, width, norm_momentum)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, num_labels)
        for layer in (self.dense, self.out):
            _initialise(layer, init)
        if bias_init is not None:
            nn.init.constant_(self.dense.bias, bias_init)

    def forward(self, features: Tensor) -> Tensor:
        z = self.dense(features)  # [B, D]
        if self.order == "activation-norm":
            z = self.norm(self.activation(z))
        else:
            z = self.activation(self.norm(z))
        return self.out(self.dropout(z))  # [B, K]

    @torch.no_grad()
    def set_prior(self, logit: Tensor) -> None:
        """Start every prediction at the labels' prior: `out.bias` becomes `logit` `[K]`."""
        self.out.bias.copy_(logit)


def _make_norm(norm: str, width: int, momentum: float) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm1d(width, eps=1e-3, momentum=momentum)
    if norm == "layer":
        return nn.LayerNorm(width, eps=1e-3)
    return nn.Identity()


def _initialise(layer: nn.Linear, init: str) -> None:
    """`torch` keeps what `nn.Linear` drew."""
    if init == "keras":
        nn.init.xavier_uniform_(layer.weight)
    elif init == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if init != "torch":
        nn.init.zeros_(layer.bias)
