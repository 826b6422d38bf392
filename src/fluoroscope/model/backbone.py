"""Feature extractors from timm that take raw 8-bit x-rays."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from fluoroscope.choices import WEIGHTS, check_weights
from fluoroscope.errors import InputError, check_choice, first_sentence, nearest
from fluoroscope.model.contracts import architecture_of
from fluoroscope.model.pretrained import load, read_file, read_package
from fluoroscope.model.published import no_weights, timm_call
from fluoroscope.model.recomputing import recompute


class Backbone(nn.Module):
    """Map uint8 images `[B, 1, H, W]` to pooled features `[B, F]`; features are returned unchanged.

    Scaling to [0, 1], expansion to the network's channels and its own mean and std happen here,
    on the device, so that training, evaluation and an exported model share one code path.

    Args:
        network: a timm model without a classifier.
        mean, std: normalisation with which its weights were trained, per input channel.
        frozen: compute no gradients, and keep batch norm in evaluation mode during training.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Any,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        frozen: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.trained_px: tuple[int, ...] = ()  # sides of the images that the weights are made for
        self.scale = 1.0  # the usual size of the values that the network sees
        self.frozen = frozen
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        # timm calls the width after pooling `head_hidden_size` if it differs from `num_features`.
        self.num_features = int(getattr(network, "head_hidden_size", None) or network.num_features)
        network.to(memory_format=self.memory_format)
        if frozen:
            network.requires_grad_(False)
            network.eval()

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def normalise(self, image: Tensor) -> Tensor:
        """Scale uint8 [B, 1, H, W] to the network's input, float [B, C, H, W]."""
        return (image.float() / 255 - self.mean) / self.std

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim == 2:  # cached features [B, F], see `data.features`
            return image
        x = self.normalise(image)
        with torch.no_grad() if self.frozen else nullcontext():
            return self.network(x.to(memory_format=self.memory_format))  # [B, F]


def check_name(name: str) -> str:
    """The architecture in a model name; that of a repository on the hub is not in its name.

    Raises:
        InputError: timm has no such network; suggests the nearest name.
    """
    if {"/", ":"} & {*name}:  # of torchxrayvision, or a repository of the hub
        return architecture_of(name)
    architecture = name.split(".", maxsplit=1)[0]
    if not timm.is_model(architecture):
        raise InputError(
            f"backbone.name: timm has no model {name!r}{nearest(architecture, timm.list_models())}"
        )
    return architecture


def make_backbone(
    name: str,
    weights: str,
    file: str | None = None,
    frozen: bool = False,
    channels_last: bool = True,
    compile: bool = False,
    grad_checkpointing: bool = False,
    args: Mapping[str, Any] | None = None,
    contract: Mapping[str, Any] | None = None,
    image_px: int | None = None,
    sync_batchnorm: bool = False,
) -> Backbone:
    """A timm network by name, with weights from the hub, a local file, a Python package, or none.

    Args:
        name: timm's model name, with or without a weight tag; the tag determines mean and std. Or a
            name of `contracts`.
        weights: `hub`, `file` (needs `file`: `.safetensors`, `.pth`, ...), `package` or `none`.
        compile: `torch.compile` the network; the head stays eager, so hooks there always fire.
        grad_checkpointing: keep only the inputs of each block, and run the block again in the
            backward pass: less memory, more time, the same gradients and statistics.
        args: further arguments of `timm.create_model`, such as `drop_path_rate`.
        contract: what the weights expect, see `contracts`; {} or None: what the name says.
        image_px: side of the images; one such image is tried. None skips this check.
        sync_batchnorm: compute batch norm over the batches of all processes. timm converts the
            layers: Lightning would remove the activation from timm's layers that include one.

    Raises:
        InputError: for an unknown name, weights that cannot be loaded or do not fit or whose
            contract is not known, an unsuitable image size, and an architecture that timm cannot
            checkpoint.
    """
    check_choice("backbone.weights", weights, WEIGHTS)
    check_weights(weights, file, check_name(name))
    called, agreed, args, contract = name, None, dict(args or {}), contract or {}
    if contract or {"/", ":"} & {*name} or "in_chans" in args:
        called, args, agreed = timm_call(name, weights, contract, args)
    network = _create(called, weights == "hub", args)
    if weights == "file":
        load(network, read_file(Path(str(file)), name, network, bool(contract)), str(file))
    elif weights == "package":
        load(network, read_package(network), "the package")
    if sync_batchnorm:
        network = convert_sync_batchnorm(network)
    cfg = network.pretrained_cfg
    mean, std = (cfg["mean"], cfg["std"]) if agreed is None else agreed.of_unit
    backbone = Backbone(network, mean, std, frozen, channels_last)
    sizes = [cfg[key][-1] for key in ("input_size", "test_input_size") if cfg.get(key)]
    if agreed is not None:
        sizes, backbone.scale = agreed.sizes or sizes, agreed.scale
    backbone.trained_px = tuple(dict.fromkeys(sizes))
    if grad_checkpointing:
        recompute(network, name, compile)
    if image_px is not None:
        _try(backbone, name, image_px)
    if compile:
        network.compile()
    return backbone


def trained_only_at(name: str) -> int | None:
    """Side of the only images that a network accepts, in pixels; None if it accepts several."""
    cfg = None if "/" in name else timm.get_pretrained_cfg(name)
    return cfg.input_size[-1] if cfg is not None and cfg.fixed_input_size else None


@torch.no_grad()
def _try(backbone: Backbone, name: str, image_px: int) -> None:
    """Try one image: some networks need a fixed size, and some arguments remove the pooling."""
    dtype = next(backbone.network.parameters()).dtype
    image = torch.zeros(1, 1, image_px, image_px, dtype=dtype)
    training = backbone.training
    try:
        shape = tuple(backbone.eval()(image).shape)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"backbone {name} does not accept images of data.image_px={image_px} with these "
            f"backbone.args ({first_sentence(error)}); change one of these keys"
        ) from None
    backbone.train(training)
    if shape != (1, backbone.num_features):
        raise InputError(
            f"backbone {name} gives features of shape {shape[1:]} with these backbone.args; the "
            "head needs one pooled vector per image"
        )


def _create(name: str, pretrained: bool, args: dict[str, Any]) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **args)
    except TypeError as error:
        raise InputError(f"backbone.args do not fit {name}: {error}") from None
    except (OSError, RuntimeError, ValueError) as error:
        # The hub client raises a dozen types, all of them OSError, RuntimeError or ValueError.
        if not pretrained:
            raise InputError(f"backbone {name} cannot be built: {error}") from None
        raise no_weights(name, error) from None
