"""The classification head whose activation the project is about."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from fluoroscope.choices import COUNT, DROPOUT, INITS, NORM_MOMENTUM, NORMS, ORDERS, check_bias_init
from fluoroscope.elementwise import check_elementwise
from fluoroscope.errors import check_choice
from fluoroscope.model.activation_table import ACTIVATIONS
from fluoroscope.model.activations import make_activation
from fluoroscope.model.derivatives import check_differentiable


class Head(nn.Module):
    """`dense -> activation -> norm -> out`: features `[B, F]` to logits `[B, K]`.

    The defaults are Keras's `Dense(896, "relu")`, `BatchNormalization()`, `Dense(K)`:
    glorot-uniform kernels, zero biases, batch norm with epsilon 1e-3 and momentum 0.01 (0.99 as
    Keras counts it). `dense`, `activation`, `norm` and `out` are stable attributes, which
    diagnostics read. Initial weights depend on the random state, not on the activation.

    Args:
        in_features: F, the width of the backbone's features.
        num_labels: K.
        width: D, the number of units.
        activation: a name of `ACTIVATIONS`, or an import path that is trusted (`own_code`).
        activation_args: its arguments.
        norm: `batch`, `layer` or `none`.
        norm_momentum: weight of a new batch in the running statistics of batch norm.
        order: `activation-norm` or `norm-activation`.
        init: of both kernels, `keras` (glorot uniform), `he` (normal, fan-in) or `torch`.
        bias_init: constant for `dense.bias`. None keeps the bias of `init` (0, 0, uniform), and so
            does `centered` until `center` is called.
        dropout: probability, before `out`.

    Raises:
        InputError: a value is not among the choices, or out of range, or the activation is not
            elementwise or has no derivative.
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
        bias_init: float | str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("head.norm", norm, NORMS)
        check_choice("head.order", order, ORDERS)
        check_choice("head.init", init, INITS)
        COUNT.check("head.width", width)
        DROPOUT.check("head.dropout", dropout)
        NORM_MOMENTUM.check("head.norm_momentum", norm_momentum)
        check_bias_init("head.bias_init", bias_init)
        self.order, self.init, self.bias_init = order, init, bias_init
        self.dense = nn.Linear(in_features, width)
        self.activation = make_activation(activation, **(activation_args or {}))
        stated = " with head.activation_args" if activation_args else ""
        check = check_elementwise if activation in ACTIVATIONS else check_differentiable
        check(self.activation, width, f"head.activation={activation}{stated}")
        self.norm = _make_norm(norm, width, norm_momentum)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, num_labels)
        for layer in (self.dense, self.out):
            _initialise(layer, init)
        if not isinstance(bias_init, str | None):
            nn.init.constant_(self.dense.bias, bias_init)

    def forward(self, features: Tensor) -> Tensor:
        z = self.dense(features)  # [B, D]
        if self.order == "activation-norm":
            z = self.norm(self.activation(z))
        else:
            z = self.activation(self.norm(z))
        return self.out(self.dropout(z))  # [B, K]

    def pre_activation(self, features: Tensor) -> Tensor:
        """Pre-activations z `[B, D]`, without calling hooks or updating running statistics."""
        z = linear(features, self.dense.weight.detach(), self.dense.bias.detach())
        if self.order == "activation-norm":
            return z
        buffers = {name: buffer.clone() for name, buffer in self.norm.named_buffers()}
        return functional_call(self.norm, buffers, (z,))

    @torch.no_grad()
    def set_prior(self, logit: Tensor) -> None:
        """Start every prediction at the labels' prior: `out.bias` becomes `logit` `[K]`."""
        self.out.bias.copy_(logit)

    @torch.no_grad()
    def center(self, mean_features: Tensor) -> None:
        """Start every unit with a mean pre-activation of 0: `dense.bias` becomes -W mean(f).

        The common direction of the features then shifts no unit, see `feature_gamma` of the
        diagnostics.

        Args:
            mean_features: mean(f) `[F]` over the data.
        """
        self.dense.bias.copy_(_centering_bias(self.dense, mean_features))

    @torch.no_grad()
    def reinitialise(self, units: Tensor, mean_features: Tensor, seed: int) -> None:
        """Draw the weights of units again as at the start, and set their weights in `out` to 0.

        Their contribution to the logits at the mean features moves into `out.bias`. Dead units have
        a constant activation, so the logits in training mode do not change (except slightly with
        layer norm, where one unit affects the others). In evaluation mode this holds as far as
        batch norm's running statistics have converged. A learned slope is kept.

        Args:
            units: bool `[D]`.
            mean_features: mean(f) `[F]` over the training data.
            seed: of the new weights; the global random state does not change.

        Source: G. Sokar et al., The Dormant Neuron Phenomenon in Deep Reinforcement Learning,
            ICML 2023, algorithm 1 (ReDo).
        """
        weights = self.out.weight[:, units]  # [K, U]
        self.out.bias.add_(weights @ self._at_mean(mean_features)[units])
        self.out.weight[:, units] = 0
        fresh = self._fresh_dense(mean_features, seed)
        self.dense.weight[units], self.dense.bias[units] = fresh.weight[units], fresh.bias[units]
        _reset_norm(self.norm, units)

    def _at_mean(self, mean_features: Tensor) -> Tensor:
        """The input of `out` from each unit at the mean features, `[D]`.

        Calls `forward` directly, because hooks would count an image.
        """
        z = self.dense.forward(mean_features[None].to(self.dense.weight))  # [1, D]
        if self.order == "activation-norm":
            return _norm_at_mean(self.norm, self.activation.forward(z))[0]
        return self.activation.forward(_norm_at_mean(self.norm, z))[0]

    def _fresh_dense(self, mean_features: Tensor, seed: int) -> nn.Linear:
        """Another draw of `dense`, the same on every process and device."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            fresh = nn.Linear(self.dense.in_features, self.dense.out_features, device="cpu")
            _initialise(fresh, self.init)
        fresh = fresh.to(self.dense.weight)
        if self.bias_init == "centered":
            fresh.bias.copy_(_centering_bias(fresh, mean_features))
        elif not isinstance(self.bias_init, str | None):
            nn.init.constant_(fresh.bias, self.bias_init)
        return fresh


def _make_norm(norm: str, width: int, momentum: float) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm1d(width, eps=1e-3, momentum=momentum)
    if norm == "layer":
        return nn.LayerNorm(width, eps=1e-3)
    return nn.Identity()


def _initialise(layer: nn.Linear, init: str) -> None:
    """Initialise kernel and bias; `torch` keeps those of `nn.Linear`."""
    if init == "keras":
        nn.init.xavier_uniform_(layer.weight)
    elif init == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if init != "torch":
        nn.init.zeros_(layer.bias)


def _centering_bias(dense: nn.Linear, mean_features: Tensor) -> Tensor:
    """-W mean(f) `[D]`, computed in float64."""
    return -(dense.weight.double() @ mean_features.double().to(dense.weight.device))


def _norm_at_mean(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm` at the units' means `[1, D]`: batch norm subtracts the means and adds its bias."""
    return norm.bias[None].clone() if isinstance(norm, nn.BatchNorm1d) else norm.forward(x)


def _reset_norm(norm: nn.Module, units: Tensor) -> None:
    """Reset the units' scale, shift and running statistics to their initial values.

    The running variance of a dead unit shrinks to zero. Without the reset it would amplify the
    revived unit in evaluation mode by up to 1 / sqrt(eps).
    """
    start = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    for name, value in start.items():
        if hasattr(norm, name):
            getattr(norm, name)[units] = value
