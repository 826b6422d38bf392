"""Compute many heads as one module with stacked weights."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, layer_norm

from fluoroscope.config.train import Train
from fluoroscope.elementwise import works_in_place
from fluoroscope.model.head import Head

# Copies in memory: weights, gradient, AdamW's two moments, the weights before a logged step.
COPIES = 5


class HeadBank(nn.Module):
    """Maps the same features `[B, F]` to the logits `[B, M, K]` of M heads.

    The dense layers are one `[F, M * D]` product, and the batch norms are one `BatchNorm1d(M * D)`.
    No operation mixes heads, so the sum of their losses gives each head the gradient of its loss.
    The given heads remain usable: their parameters and buffers are views of the bank's, and
    they follow its training mode. Code that reads or hooks a `Head` thus sees the bank.

    Args:
        heads: equal in F, D, K and norm; activation, order, weights and dropout may differ. The
            bank takes over their parameters.

    Raises:
        ValueError: if F, D, K or the norm differ between heads.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        if len({_stacked_form(head) for head in heads}) != 1:
            raise ValueError("heads of a bank must have equal features, width, labels and norm")
        first = heads[0]
        self.width, self.in_features = first.dense.out_features, first.dense.in_features
        self.num_labels = first.out.out_features
        self.heads = tuple(heads)  # not a ModuleList: the bank already owns their parameters
        self.activations = nn.ModuleList(head.activation for head in heads)
        self._overwrites = [works_in_place(head.activation, self.width) for head in heads]
        self.dense_weight = _stack([head.dense.weight for head in heads])  # [M * D, F]
        self.dense_bias = _stack([head.dense.bias for head in heads])
        self.norm = _stack_norms([head.norm for head in heads])
        self.out_weight = _stack([head.out.weight[None] for head in heads])  # [M, K, D]
        self.out_bias = _stack([head.out.bias for head in heads])  # [M * K], 1-d: no weight decay
        self._tie()

    def forward(self, features: Tensor, draws: Sequence[int] | None = None) -> Tensor:
        """Logits `[B, M, K]`.

        Args:
            features: `[B, F]`.
            draws: one dropout seed per head; None draws from the global random state.
        """
        return self.logits(self.preactivations(features), draws)

    def preactivations(self, features: Tensor) -> Tensor:
        """Pre-activations of all heads, `[B, M * D]`, one head after another."""
        # Weights on the left: faster on a CPU for small batches.
        z = torch.addmm(self.dense_bias[:, None], self.dense_weight, features.T)
        return z.T.contiguous()

    def logits(self, z: Tensor, draws: Sequence[int] | None = None) -> Tensor:
        """Logits from pre-activations; calls the heads' activation modules, so hooks fire."""
        x = self._activate(z, "activation-norm")
        x = self._activate(self._normalise(x), "norm-activation")
        x = self._drop(x, draws).view(len(z), len(self.heads), self.width)  # [B, M, D]
        logits = torch.einsum("bmd,mkd->bmk", x, self.out_weight)
        return logits + self.out_bias.view(len(self.heads), self.num_labels)

    def of(self, index: int) -> slice:
        """The columns of a head in `[B, M * D]`."""
        return slice(index * self.width, (index + 1) * self.width)

    def tie_gradients(self) -> None:
        """After a backward pass, make each head's `.grad` a view of the bank's."""
        for index, head in enumerate(self.heads):
            for mine, whole, place in self._pairs(index, head):
                mine.grad = None if whole.grad is None else whole.grad[place].view_as(mine)

    def train(self, mode: bool = True) -> "HeadBank":
        super().train(mode)
        for head in self.heads:
            head.train(mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> "HeadBank":
        """Renew the views, since moves and casts replace the tensors."""
        super()._apply(fn, recurse)
        for head in self.heads:
            head._apply(fn)
        self._tie()
        return self

    def _activate(self, x: Tensor, order: str) -> Tensor:
        if all(head.order != order for head in self.heads):
            return x
        parts = []
        for index, head in enumerate(self.heads):
            mine = x[:, self.of(index)]
            if head.order == order:
                # An in-place activation would overwrite the pre-activations and their gradients.
                mine = head.activation(mine.clone() if self._overwrites[index] else mine)
            parts.append(mine)
        return torch.cat(parts, dim=1)

    def _normalise(self, x: Tensor) -> Tensor:
        if not isinstance(self.norm, _LayerNorms):
            return self.norm(x)
        return self.norm(x.view(len(x), len(self.heads), self.width)).view_as(x)

    def _drop(self, x: Tensor, draws: Sequence[int] | None) -> Tensor:
        if not self.training or all(head.dropout.p == 0 for head in self.heads):
            return x
        parts = []
        for index, head in enumerate(self.heads):
            if draws is not None and head.dropout.p > 0:
                torch.manual_seed(draws[index])
            parts.append(dropout(x[:, self.of(index)].contiguous(), head.dropout.p))
        return torch.cat(parts, dim=1)

    def _pairs(self, index: int, head: Head) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """Each parameter of a head, the bank's stacked parameter, and the head's slice of it."""
        units = self.of(index)
        labels = slice(index * self.num_labels, (index + 1) * self.num_labels)
        yield head.dense.weight, self.dense_weight, units
        yield head.dense.bias, self.dense_bias, units
        yield head.out.weight, self.out_weight, slice(index, index + 1)
        yield head.out.bias, self.out_bias, labels
        for name, parameter in head.norm.named_parameters():
            yield parameter, getattr(self.norm, name), units

    @torch.no_grad()
    def _tie(self) -> None:
        for index, head in enumerate(self.heads):
            for mine, whole, place in self._pairs(index, head):
                mine.data = whole.data[place].view_as(mine)
            if isinstance(self.norm, nn.BatchNorm1d):
                norm: Any = head.norm
                for name in ("running_mean", "running_var"):
                    setattr(norm, name, getattr(self.norm, name)[self.of(index)])
                norm.num_batches_tracked = self.norm.num_batches_tracked


class _LayerNorms(nn.Module):
    """M layer norms on `[B, M, D]`, each over the D units of one head."""

    def __init__(self, norms: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.eps, self.width = norms[0].eps, norms[0].normalized_shape[0]
        # One-dimensional, so that weight decay leaves them out, as in any norm.
        self.weight = _stack([norm.weight for norm in norms])
        self.bias = _stack([norm.bias for norm in norms])

    def forward(self, x: Tensor) -> Tensor:
        x = layer_norm(x, (self.width,), eps=self.eps)
        return x * self.weight.view(x.shape[1:]) + self.bias.view(x.shape[1:])


def _stack(parts: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([part.detach() for part in parts]))


def _stacked_form(head: Head) -> tuple[Any, ...]:
    """The properties that all heads of a bank share."""
    norm: Any = head.norm
    kind = (type(norm), getattr(norm, "eps", None), getattr(norm, "momentum", None))
    return head.dense.in_features, head.dense.out_features, head.out.out_features, *kind


@torch.no_grad()
def _stack_norms(norms: Sequence[Any]) -> nn.Module:
    first = norms[0]
    if isinstance(first, nn.LayerNorm):
        return _LayerNorms(norms)
    if not isinstance(first, nn.BatchNorm1d):
        return nn.Identity()
    whole = nn.BatchNorm1d(first.num_features * len(norms), first.eps, first.momentum)
    whole = whole.to(first.weight)
    for name, tensor in whole.named_parameters():
        tensor.copy_(torch.cat([getattr(norm, name) for norm in norms]))
    for name in ("running_mean", "running_var"):
        getattr(whole, name).copy_(torch.cat([getattr(norm, name) for norm in norms]))
    return whole


def head_bytes(cfg: Train, features: int, labels: int) -> float:
    """Bytes needed to train a head: copies of its weights, the `[D, D]` sums of the effective rank,
    and about thirty `[B, D]` tensors.
    """
    width, size = cfg.head.width, 8 if cfg.trainer.precision == "64-true" else 4
    weights = width * (features + labels + 6)
    return size * (COPIES * weights + 30 * cfg.data.batch_size * width) + 8 * width**2
