"""Features on disk: computed once for an image set and a backbone, checked before they are used."""

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

from fluoroscope.ablation.features import extract
from fluoroscope.atomic_write import write_atomically
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.leakage import marks
from fluoroscope.data.survey import user_cache
from fluoroscope.errors import InputError

SAMPLE = 8  # images whose features are computed anew to check a file


Augment = Sequence[Mapping[str, Any]]


def cached_features(
    backbone: nn.Module,
    data: XrayDataModule,
    views: int,
    augment: Augment,
    device: torch.device,
    folder: Path | None,
) -> tuple[Tensor, str]:
    """Features float32 `[1 + views, N, F]`, first of the images as they are, and where they are
    from: a sentence.

    Args:
        views: augmentations of the training images; NaN for the others.
        augment: what they are made by, as `data` was told.
        folder: of the cache; None computes and keeps nothing.

    Raises:
        InputError: the file cannot be written.
    """
    if folder is None:
        return _compute(backbone, data, views, device), "features computed"
    path = folder / f"{fingerprint(backbone, data, views, augment)}.safetensors"
    if path.is_file():
        features, flaw = _read(path, backbone, data, device)
        if features is not None:
            return features, f"features of {len(data.table)} images from {path}"
        print(f"{path} {flaw}: its features are computed anew")
    features = _compute(backbone, data, views, device)
    _write(path, features)
    return features, f"features of {len(data.table)} images kept in {path}"


def feature_folder() -> Path | None:
    """Where they are kept for the next study; None without a home."""
    base = user_cache()
    return None if base is None else base / "features"


def fingerprint(backbone: nn.Module, data: XrayDataModule, views: int, augment: Augment) -> str:
    """Of the backbone's weights, the images in their order, and how they are shown to it."""
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
    # Of images that are not compressed the marks see a margin alone.
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
    """The features, or None and what is wrong with them."""
    try:
        with safe_open(path, framework="pt") as file:
            features, metadata = file.get_tensor("features"), file.metadata() or {}
    except (OSError, SafetensorError):
        return None, "cannot be read"
    if metadata.get("sha256") != hashlib.sha256(_bytes(features)).hexdigest():
        return None, "does not hold what was written"
    rows = list(range(0, len(data.table), max(1, len(data.table) // SAMPLE)))[:SAMPLE]
    again = extract(backbone, data, device, rows=rows)[rows]
    # Other batches and other machines round otherwise.
    if not torch.allclose(features[0, rows], again, rtol=1e-3, atol=1e-3 * float(again.std())):
        return None, "is not what this backbone gives"
    return features, ""


def _write(path: Path, features: Tensor) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, shared=True) as part:
            sha256 = hashlib.sha256(_bytes(features)).hexdigest()
            save_file({"features": features}, part, {"sha256": sha256})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot keep the features in {path.parent} ({error}); make room, or set "
            "XDG_CACHE_HOME to another place"
        ) from None


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
