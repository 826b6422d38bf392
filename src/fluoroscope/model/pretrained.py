"""Files of pretrained weights, each with the manifest that `scripts/prepare.py` puts beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from fluoroscope.errors import InputError

NEEDED = {"name", "sha256", "bytes", "mean", "std"}


def manifest_path(file: Path) -> Path:
    """`weights/NAME.manifest.json` of `weights/NAME.safetensors`."""
    return file.with_name(f"{file.stem}.manifest.json")


def read_manifest(file: Path) -> dict[str, Any] | None:
    """What the manifest of a file of weights says; None without one.

    Raises:
        InputError: it is damaged itself.
    """
    path = manifest_path(file)
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or not manifest.keys() >= NEEDED:
        raise InputError(
            f"{path} is damaged; delete it and run python scripts/prepare.py weights={file.stem}"
        )
    return manifest


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def damage(file: Path, manifest: Mapping[str, Any]) -> str | None:
    """What of a file is not as its manifest says; None if it is whole."""
    size = file.stat().st_size
    if size != manifest["bytes"]:
        return f"it has {size} of {manifest['bytes']} bytes"
    return None if sha256(file) == manifest["sha256"] else "its SHA-256 is not the manifest's"


def read_file(path: Path, name: str, cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of a weight file, without wrappers such as `state_dict` or `module.`.

    Args:
        name: of the network it is for, and `cfg` that network's `pretrained_cfg`.

    Raises:
        InputError: missing, not as its manifest says, not readable, or trained on images of
            another mean and std than the network's.
    """
    if not path.is_file():
        raise InputError(f"backbone.file: no file {path}")
    manifest = read_manifest(path)
    if manifest is not None:
        _check(path, manifest, name, cfg)
    try:
        return timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception:
        raise InputError(
            f"backbone.file: {path} holds no weights that can be read; it must be .safetensors, or "
            ".pth with nothing but tensors"
        ) from None


def _check(path: Path, manifest: Mapping[str, Any], name: str, cfg: Mapping[str, Any]) -> None:
    if damaged := damage(path, manifest):
        raise InputError(
            f"backbone.file: {path} is damaged ({damaged}); copy it again, or fetch it again with "
            f"python scripts/prepare.py weights={manifest['name']}"
        )
    if any(list(manifest[key]) != list(cfg[key]) for key in ("mean", "std")):
        raise InputError(
            f"backbone.file: {path} was trained on images of another mean and std than those of "
            f"backbone.name={name}; set backbone.name={manifest['name']}"
        )
