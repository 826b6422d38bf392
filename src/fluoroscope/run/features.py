"""Features of a frozen backbone: computed once for a set of images, kept on disk, and checked
before they are used again.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fluoroscope.atomic_write import write_atomically
from fluoroscope.console import show_progress
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.leakage import marks
from fluoroscope.data.survey import user_cache
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone
from fluoroscope.run.input_check import look_at

SAMPLE = 8  # images whose features are recomputed to check a file
ROUNDING = 0.1  # largest root mean square difference, in standard deviations of the features

Augment = Sequence[Mapping[str, Any]]


def cached_features(
    backbone: nn.Module,
    data: XrayDataModule,
    views: int,
    augment: Augment,
    device: torch.device,
    folder: Path | None,
) -> tuple[Tensor, str]:
    """Features float32 `[1 + views, N, F]`, and a sentence that says where they come from.

    Index 0 holds all images without augmentation. Each view holds the augmented training images,
    and NaN for all other images.

    Args:
        views: number of augmented views.
        augment: the configured augmentations of `data`, part of the file's fingerprint.
        folder: cache folder; None computes the features and does not store them.

    Raises:
        InputError: if the file cannot be written.
    """
    if folder is None:
        return _compute(backbone, data, views, device), "features computed"
    path = folder / f"{fingerprint(backbone, data, views, augment)}.safetensors"
    if path.is_file():
        features, flaw = _read(path, backbone, data, device)
        if features is not None:
            return features, f"features of {len(data.table)} images from {path}"
        print(f"{path} {flaw}: the features are computed again")
    features = _compute(backbone, data, views, device)
    _write(path, features)
    return features, f"features of {len(data.table)} images stored in {path}"


def feature_folder() -> Path | None:
    """Cache folder of the user; None without a home directory."""
    base = user_cache()
    return None if base is None else base / "features"


def fingerprint(backbone: nn.Module, data: XrayDataModule, views: int, augment: Augment) -> str:
    """Hash of the backbone, the images in their order, their size and the augmented views."""
    digest = hashlib.sha256()
    tensors = dict(backbone.named_buffers()) | backbone.state_dict()  # mean and std too
    for name, tensor in tensors.items():
        digest.update(name.encode() + _bytes(tensor))
    shown: dict[str, Any] = {"px": data.image_px, "network": str(backbone), "views": views}
    if views:
        train = data.table["split"] == "train"
        shown |= {"augment": list(augment), "seed": data.seed, "train": train.tolist()}
    digest.update(json.dumps(shown).encode())
    paths = data.table["path"].tolist()
    # The marks of uncompressed images cover only their margin.
    changed = [os.stat(path).st_mtime_ns for path in paths]
    digest.update(json.dumps([marks(paths), changed]).encode())
    return digest.hexdigest()[:32]


def _compute(backbone: nn.Module, data: XrayDataModule, views: int, device: torch.device) -> Tensor:
    plain = extract(backbone, data, device)
    augmented = [extract(backbone, data, device, view=view) for view in range(views)]
    return torch.stack([plain, *augmented])


def _read(
    path: Path, backbone: nn.Module, data: XrayDataModule, device: torch.device
) -> tuple[Tensor | None, str]:
    """The features, or None and the reason why the file cannot be used."""
    try:
        with safe_open(path, framework="pt") as file:
            features, metadata = file.get_tensor("features"), file.metadata() or {}
    except (OSError, SafetensorError):
        return None, "cannot be read"
    if metadata.get("sha256") != hashlib.sha256(_bytes(features)).hexdigest():
        return None, "was changed after it was written"
    rows = list(range(0, len(data.table), max(1, len(data.table) // SAMPLE)))[:SAMPLE]
    again = extract(backbone, data, device, rows=rows)[rows]
    # A GPU rounds the factors of a convolution to 11 bits (TF32), a CPU does not.
    if not (features[0, rows] - again).square().mean().sqrt() < ROUNDING * again.std():
        return None, "holds features of another backbone"
    return features, ""


def _write(path: Path, features: Tensor) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, shared=True) as part:
            sha256 = hashlib.sha256(_bytes(features)).hexdigest()
            save_file({"features": features}, part, {"sha256": sha256})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot store the features in {path.parent} ({error}); free disk space, or set "
            "XDG_CACHE_HOME to another folder"
        ) from None


@torch.no_grad()
def extract(
    backbone: nn.Module,
    data: XrayDataModule,
    device: torch.device | None = None,
    *,
    view: int | None = None,
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Features float32 `[N, F]` of the study table, in its order; NaN for images left out.

    Args:
        device: where to compute; None uses the backbone's device. The backbone is moved back.
        view: the training images, augmented as in epoch `view` of a run; None for all images
            without augmentation.
        rows: only these rows of the study table; not together with `view`.

    Raises:
        InputError: if the first batch is unusable, see `look_at`.
    """
    home = next(backbone.parameters()).device
    device = device or home
    backbone.eval()
    backbone.to(device)
    features = torch.empty(0)
    description = "features" if view is None else f"features, view {view + 1}"
    loader = _loader(data, view, rows)
    for batch in show_progress(loader, f"{description}, batches", len(loader)):
        image = batch["image"].to(device)
        if not len(features) and isinstance(backbone, Backbone):
            look_at({**batch, "image": image}, data, backbone)
        f = backbone(image).float().cpu()
        if not len(features):
            features = torch.full((len(data.table), f.shape[1]), float("nan"))
        features[batch["index"]] = f
    backbone.to(home)
    return features


def _loader(data: XrayDataModule, view: int | None, rows: Sequence[int] | None) -> DataLoader:
    if view is not None:
        draws = [(i, view, 0) for i in range(len(data.target("train")))]
        return data.drawn_dataloader("train", draws, augmented=True)
    draws = [(i, 0, 0) for i in (rows if rows is not None else range(len(data.table)))]
    return data.drawn_dataloader("all", draws)


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
