"""Files of pretrained weights, each with a manifest that `scripts/prepare.py` writes beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import timm
from torch import Tensor

from fluoroscope.errors import InputError, check_file

NEEDED = {"name", "sha256", "bytes", "mean", "std"}


def manifest_path(file: Path) -> Path:
    """`weights/NAME.manifest.json` for `weights/NAME.safetensors`."""
    return file.with_name(f"{file.stem}.manifest.json")


def read_manifest(file: Path) -> dict[str, Any] | None:
    """The manifest of a weights file; None if it does not exist.

    Raises:
        InputError: the manifest is damaged.
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
    """The difference between a file and its manifest, in words; None if they agree."""
    size = file.stat().st_size
    if size != manifest["bytes"]:
        return f"it has {size} of {manifest['bytes']} bytes"
    return None if sha256(file) == manifest["sha256"] else "its SHA-256 differs from the manifest"


def check_sums(path: Path) -> None:
    """Compare the parts of a zip archive, such as PyTorch writes, with their checksums.

    PyTorch itself does not: a flipped bit would be another weight. Files of other formats have no
    checksums.

    Raises:
        BadZipFile: a part differs.
    """
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with ZipFile(path) as packed:
            if damaged := packed.testzip():
                raise BadZipFile(damaged)


def read_file(path: Path, name: str, cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of a weight file, without wrappers such as `state_dict` or `module.`.

    Args:
        name: of the network.
        cfg: the network's `pretrained_cfg`.

    Raises:
        InputError: the file is missing, differs from its manifest, cannot be read, or was trained
            with another mean and std than the network.
    """
    check_file("backbone.file", path)
    manifest = read_manifest(path)
    if manifest is not None:
        _check(path, manifest, name, cfg)
    try:
        check_sums(path)
        return timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception:
        raise InputError(
            f"backbone.file: cannot read weights from {path}; it must be .safetensors, or .pth "
            "with only tensors, and not damaged"
        ) from None


def _check(path: Path, manifest: Mapping[str, Any], name: str, cfg: Mapping[str, Any]) -> None:
    if damaged := damage(path, manifest):
        raise InputError(
            f"backbone.file: {path} is damaged ({damaged}); copy it again, or fetch it again with "
            f"python scripts/prepare.py weights={manifest['name']}"
        )
    if any(list(manifest[key]) != list(cfg[key]) for key in ("mean", "std")):
        raise InputError(
            f"backbone.file: {path} was trained with another mean and std than "
            f"backbone.name={name}; set backbone.name={manifest['name']}"
        )
