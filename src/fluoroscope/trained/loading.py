"""Open a trained model without its data."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from fluoroscope import sources
from fluoroscope.build import build_backbone
from fluoroscope.config.place_checks import find_checkpoint
from fluoroscope.config.schema import check, plain
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone
from fluoroscope.model.head import Head
from fluoroscope.run import run_folder
from fluoroscope.run.resume import check_weights, load_checkpoint

PARTS = ("backbone.", "head.")  # of the weights; the loss has some too


class Network(nn.Module):
    """Backbone and head, in evaluation mode and without gradients of the weights."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> Tensor:
        """uint8 `[B, 1, S, S]` to logits `[B, K]`."""
        return self.head(self.backbone(image))


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        place: the checkpoint.
        folder: its run folder; None for a checkpoint that lies alone.
        config: of the run; text that names a place is missing if the run folder is.
        labels: K names, in the order of the logits.
        network: in evaluation mode on `device`.
        checkpoint: of `run.resume.load_checkpoint`.
        fingerprint: of the weights, 16 hexadecimal digits.
    """

    place: Path
    folder: Path | None
    config: Train
    labels: tuple[str, ...]
    network: Network
    device: torch.device
    checkpoint: dict[str, Any]
    fingerprint: str

    @property
    def image_px(self) -> int:
        """Side of the images that the model was trained on."""
        return self.config.data.image_px


def open_trained(place: str | Path, accelerator: str = "auto") -> Trained:
    """Open a run folder or a checkpoint; nothing in it is executed.

    Args:
        accelerator: auto (a GPU if there is one), cpu or gpu.

    Raises:
        InputError: there is no checkpoint, it is damaged, or its weights do not fit.
    """
    path = find_checkpoint(place)
    device = device_of(accelerator)
    checkpoint = load_checkpoint(path)
    config, labels = _config(checkpoint), tuple(checkpoint["config"]["data"]["labels"])
    weights = {k: v for k, v in checkpoint["state_dict"].items() if k.startswith(PARTS)}
    network = _network(config, len(labels))
    check_weights(network, {"state_dict": weights})
    network.load_state_dict(weights)
    network.eval().requires_grad_(False).to(device)
    folder = path.parent.parent if (path.parent.parent / run_folder.CONFIG).is_file() else None
    facts = config, labels, network, device, checkpoint, fingerprint_of(weights)
    return Trained(path, folder, *facts)


def fingerprint_of(weights: dict[str, Tensor]) -> str:
    """16 hexadecimal digits that any other weights change."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _config(checkpoint: dict[str, Any]) -> Train:
    stored = checkpoint["config"]
    keys = Train(data=sources.keys_of(stored["data"]["source"])())
    config: Train = check(OmegaConf.create(stored), keys, whole=False)
    config.backbone.compile = config.backbone.grad_checkpointing = False
    config.trainer.sync_batchnorm = False
    return config


def _network(config: Train, num_labels: int) -> Network:
    backbone = build_backbone(config, pretrained=False)
    keys = plain(config)["head"]
    del keys["prior_bias"]  # of a start without weights
    return Network(backbone, Head(backbone.num_features, num_labels, **keys))


def device_of(accelerator: str) -> torch.device:
    """The device of auto (a GPU if there is one), cpu or gpu.

    Raises:
        InputError: another word, or there is no GPU.
    """
    if accelerator not in ("auto", "cpu", "gpu"):
        raise InputError(f"accelerator must be auto, cpu or gpu; got {accelerator}")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("accelerator=gpu, but PyTorch sees no GPU; use accelerator=cpu")
    use_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")
