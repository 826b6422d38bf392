"""Backbone weights as files, each with a manifest that holds its SHA-256."""

import shlex
import time
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants
from safetensors.torch import save_file

from fluoroscope.atomic_write import write_atomically
from fluoroscope.commands import called
from fluoroscope.config.prepare import Job
from fluoroscope.errors import InputError, first_sentence, nearest
from fluoroscope.launch.answers import answers
from fluoroscope.model.pretrained import damage, manifest_path, read_manifest, sha256
from fluoroscope.prepare.copy_manifest import write_json

HUB_TIMEOUT_S = 5.0


def main(job: Job) -> None:
    """Entry of `scripts/prepare.py weights=...`: write the files and print how to use them."""
    names = [full_name(name) for name in job.weights]
    job.out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        print(f"[{number}/{len(names)}] {name}: ", end="", flush=True)
        print(provide(name, job.out), flush=True)
    print("\nTo train with them, here or on a machine that the folder is copied to:")
    for name in names:
        file = shlex.quote(f"backbone.file={file_of(name, job.out)}")
        print(f"  {called('train')} backbone.name={name} backbone.weights=file {file}")


def full_name(name: str) -> str:
    """Name of a network with its weight tag; timm's default tag if it has none.

    Raises:
        InputError: timm does not have the network, or not these weights; lists those it has.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise InputError(f"weights: timm has no {name}{nearest(architecture, timm.list_models())}")
    known = timm.list_pretrained(f"{architecture}.*")
    if not known:
        raise InputError(f"weights: timm has no weights for {architecture}")
    if "." not in name:
        cfg = timm.get_pretrained_cfg(name)
        assert cfg is not None
        return f"{architecture}.{cfg.tag}"
    if name not in known:
        raise InputError(
            f"weights: timm has no {name}{nearest(name, known)}; it has {', '.join(known)}"
        )
    return name


def file_of(name: str, folder: Path) -> Path:
    return folder / f"{name}.safetensors"


def provide(name: str, folder: Path) -> str:
    """Fetch weights unless an undamaged file exists.

    Returns:
        What was done, in words.

    Raises:
        InputError: the weights cannot be fetched or written.
    """
    file, problem = file_of(name, folder), None
    if file.is_file():
        problem = _problem(file)
        if problem is None:
            return f"already in {folder}, SHA-256 matches the manifest"
        print(f"{file} is damaged ({problem}); ", end="", flush=True)
    print("fetching ... ", end="", flush=True)
    started = time.perf_counter()
    network = _fetch(name)
    _write(file, name, network)
    size, seconds = file.stat().st_size / 1e6, time.perf_counter() - started
    return f"{size:.1f} MB in {seconds:.0f} s"


def _problem(file: Path) -> str | None:
    try:
        manifest = read_manifest(file)
    except InputError:
        return "its manifest cannot be read"
    return "it has no manifest" if manifest is None else damage(file, manifest)


def _fetch(name: str) -> Any:
    """Timm's network, with the weights of `backbone.weights=hub`."""
    if not constants.is_offline_mode() and not answers(constants.ENDPOINT, HUB_TIMEOUT_S):
        # Use the cache of the hub's client at once, without half a minute of attempts.
        constants.HF_HUB_OFFLINE = True
    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client, timm and safetensors raise a dozen types
        reason = first_sentence(error)
    print(flush=True)
    if constants.is_offline_mode():
        raise InputError(
            f"weights: cannot fetch {name}: the hub {constants.ENDPOINT} does not answer, and its "
            "cache on this machine lacks them; run this on a machine that can reach the hub"
        )
    raise InputError(f"weights: cannot fetch {name} from {constants.ENDPOINT} ({reason})")


def _write(file: Path, name: str, network: Any) -> None:
    """Write the weights, then the manifest: a file without a manifest is fetched again."""
    # Clones: tied weights share memory, which the format does not allow.
    state = {key: value.clone().contiguous() for key, value in network.state_dict().items()}
    try:
        with write_atomically(file) as part:
            save_file(state, part, metadata={"format": "pt"})
            manifest = _manifest(name, network.pretrained_cfg, part)
        write_json(manifest_path(file), manifest)
    except Exception as error:  # safetensors raises its own type for a full disk
        raise InputError(f"out: cannot write {file} ({first_sentence(error)})") from None


def _manifest(name: str, cfg: Any, file: Path) -> dict[str, Any]:
    keys = ("architecture", "mean", "std", "input_size", "license")
    return {
        "name": name,
        "sha256": sha256(file),
        "bytes": file.stat().st_size,
        **{key: cfg.get(key) for key in keys},
        "timm": timm.__version__,
    }
