"""The layer of a network at which the places of an image can last be told apart."""

from collections.abc import Iterator
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from fluoroscope.errors import InputError
from fluoroscope.trained.loading import Network

TRIAL_IMAGES = 2


class Differentiable(nn.Module):
    """The network on gray values as floats, so that gradients reach any layer and the image.

    Its module `map` receives the chosen layer's map as `[B, C, h, w]`, whatever the form that the
    layer gives it: captum attributes to this module.

    Args:
        network: of a trained model.
        layer: a module of `network.backbone.network`; None is the result of timm's
            `forward_features`, the last layer before the pooling.
    """

    def __init__(self, network: Network, layer: str | None = None) -> None:
        super().__init__()
        self.backbone, self.head, self.map = network.backbone, network.head, nn.Identity()
        self.layer = layer

    def forward(self, image: Tensor) -> Tensor:
        """Gray values 0 to 255 `[B, 1, S, S]` to logits `[B, K]`."""
        return self.head(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """The backbone's features `[B, F]`, also of a frozen backbone with gradients."""
        network: Any = self.backbone.network
        x = self.backbone.normalise(image).to(memory_format=self.backbone.memory_format)
        if self.layer is None:
            return network.forward_head(self._tapped(network.forward_features(x)))
        layer = network.get_submodule(self.layer)
        hook = layer.register_forward_hook(lambda module, inputs, out: self._tapped(out))
        try:
            return network(x)
        finally:
            hook.remove()

    def _tapped(self, out: Any) -> Tensor:
        form = form_of(out)
        return with_map(out, self.map(as_map(out, form)), form)


def find_map_layer(network: Network, image_px: int) -> str | None:
    """The last layer with a map whose places all count for the features; see `Differentiable`.

    The last layer of a transformer with a class token is not one: only this token goes on to the
    head, so no gradient reaches the places.

    Raises:
        InputError: the network has no such layer.
    """
    for layer in _candidates(network.backbone.network):
        if _is_usable(Differentiable(network, layer), image_px):
            return layer
    raise InputError(
        "methods: Grad-CAM needs a layer with a map of places, and none is known of backbone "
        f"{type(network.backbone.network).__name__}; use methods=[integrated_gradients]"
    )


def _candidates(network: Any) -> Iterator[str | None]:
    yield None
    known = getattr(network, "feature_info", None)
    for entry in reversed(known if isinstance(known, list) else []):
        layer = str(entry["module"])
        part = dict(network.named_modules()).get(layer)
        # A list of layers is never called itself.
        yield f"{layer}.{len(part) - 1}" if isinstance(part, nn.ModuleList) else layer


def _is_usable(explained: Differentiable, image_px: int) -> bool:
    weight = next(explained.parameters())
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(TRIAL_IMAGES, 1, image_px, image_px, generator=generator)
    image = (255 * noise).to(weight.device).requires_grad_()
    maps: list[Tensor] = []
    hook = explained.map.register_forward_hook(lambda module, inputs, out: maps.append(out))
    try:
        features = explained.features(image)
        (slope,) = torch.autograd.grad(features.square().sum(), maps[0], allow_unused=True)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False  # no such module, not called, or another form: the next candidate is tried
    finally:
        hook.remove()
    return slope is not None and bool(slope.any())


def form_of(out: Any) -> tuple[str, int]:
    """The form of a square map: `channels first`, `channels last`, or `tokens` after a number of
    tokens that belong to no place.

    Raises:
        ValueError: it is none of these, or has one place only.

    >>> form_of(torch.zeros(2, 96, 5, 5)), form_of(torch.zeros(2, 5, 5, 64))
    (('channels first', 0), ('channels last', 0))
    >>> form_of(torch.zeros(2, 201, 64))
    ('tokens', 5)
    """
    shape = tuple(out.shape) if isinstance(out, Tensor) else ()
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return "channels first", 0
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return "channels last", 0
    if len(shape) == 3 and (side := isqrt(shape[1])) > 1:
        return "tokens", shape[1] - side**2
    raise ValueError(f"no map of places: {shape}")


def as_map(out: Tensor, form: tuple[str, int]) -> Tensor:
    """A layer's output as `[B, C, h, w]`."""
    kind, others = form
    if kind == "channels first":
        return out
    if kind == "channels last":
        return out.permute(0, 3, 1, 2)
    places = out[:, others:].transpose(1, 2)  # [B, C, N]
    return places.unflatten(2, (isqrt(places.shape[2]), -1))


def with_map(out: Tensor, places: Tensor, form: tuple[str, int]) -> Tensor:
    """The output of `as_map` in the layer's own form again, so that gradients pass through it."""
    kind, others = form
    if kind == "channels first":
        return places
    if kind == "channels last":
        return places.permute(0, 2, 3, 1)
    return torch.cat([out[:, :others], places.flatten(2).transpose(1, 2)], dim=1)
