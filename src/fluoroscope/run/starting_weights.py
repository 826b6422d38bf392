"""Start a run from the weights of an earlier run, or from a repository of the hub."""

from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any
from zipfile import is_zipfile

import torch
from timm.models import load_model_config_from_hf

from fluoroscope.config.rules import check_backbone_args
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.config.weights_keys import check_weights_contract
from fluoroscope.console import make_console
from fluoroscope.data.earlier_runs import marks_of, without_seen
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.model.contracts import HUB, Contract, unknown_contract
from fluoroscope.model.training_collections import shared_with, trained_on
from fluoroscope.run.resume import load_checkpoint, newest_checkpoint

Checkpoint = dict[str, Any]
# Keys of a head that decide what its weights mean.
HEAD = ("width", "activation", "activation_args", "norm", "order")


def own_checkpoint(cfg: Train) -> Checkpoint | None:
    """The checkpoint of an earlier run that `backbone.file` names; None for any other weights.

    Raises:
        InputError: the checkpoint is damaged.
    """
    if cfg.backbone.weights != "file":
        return None
    path = Path(str(cfg.backbone.file))
    return _opened(path, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=1)
def _opened(path: Path, changed: int) -> Checkpoint | None:
    if not is_zipfile(path):
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # `pretrained.read_file` says what is wrong with it
        return None
    is_own = isinstance(content, dict) and "split_fingerprint" in content
    return load_checkpoint(path) if is_own else None


def settle(cfg: Train) -> None:
    """Write into the configuration what the weights of an earlier run or of the hub need.

    Later, the run can be opened without them.

    Raises:
        InputError: they are those of another network, or what they need is not known.
    """
    if (checkpoint := own_checkpoint(cfg)) is not None:
        _settle_own(cfg, checkpoint["config"]["backbone"])
    elif cfg.backbone.weights == "hub" and cfg.backbone.name.startswith(HUB):
        _settle_hub(cfg)


def _settle_own(cfg: Train, before: dict[str, Any]) -> None:
    now = cfg.backbone
    if now.name != before["name"]:
        raise InputError(
            f"backbone.file holds the network {before['name']}, and backbone.name is {now.name}; "
            f"set backbone.name={before['name']}"
        )
    contract = plain(now.contract)
    if contract and contract != before["contract"]:
        raise InputError(
            "backbone.contract differs from that of the run in backbone.file; leave it out"
        )
    now.contract, now.args = before["contract"], {**before["args"], **plain(now.args)}


def _settle_hub(cfg: Train) -> None:
    backbone = cfg.backbone
    if backbone.contract.get("architecture"):
        return
    place = f"backbone.name={backbone.name}"
    try:
        about, architecture, args = load_model_config_from_hf(backbone.name.removeprefix(HUB))
        size = about.get("input_size") or (3, None)
        channels, px = int(plain(backbone.args).get("in_chans", size[0])), size[-1]
    except Exception as error:  # the hub's client raises a dozen types, and the file may be any
        raise InputError(
            f"{place}: the hub provides no config.json of a timm network "
            f"({first_sentence(error)}); check the name"
        ) from None
    keys = plain(backbone.contract)
    if not keys:
        if not (about.get("mean") and about.get("std")):
            raise unknown_contract(place)
        mean, std = (tuple(map(float, about[name])) for name in ("mean", "std"))
        if channels == 1:
            mean, std = (fmean(mean),), (fmean(std),)
        keys = Contract(channels, mean, std, range=(0.0, 1.0), image_px=px).as_keys()
    shape = {name: value for name, value in args.items() if name not in ("num_classes", "in_chans")}
    keys["architecture"] = str(architecture).partition(".")[0]
    check_weights_contract(f"{place}: config.json", keys)
    check_backbone_args(f"{place}: model_args in config.json", shape)
    backbone.args, backbone.contract = {**shape, **plain(backbone.args)}, keys


def checked(cfg: Train, studies: Studies, trained: Path | None = None) -> Studies:
    """The studies with marks of earlier runs, whose images are not tested again.

    Args:
        trained: folder of a run to resume, whose checkpoint has these marks; the file of the
            earlier run may be gone, or be another.

    Raises:
        InputError: see `leakage.without_seen`.
    """
    from_file = cfg.backbone.weights == "file"
    newest = newest_checkpoint(trained) if trained and from_file else None
    if newest is not None:
        earlier = list(newest[1].get("earlier", ()))
    else:
        checkpoint = own_checkpoint(cfg)
        earlier = [] if checkpoint is None else marks_of(checkpoint)
    warn_of_weights(plain(cfg)["backbone"], studies.source)
    return without_seen(studies, earlier, cfg.data.on_duplicate)


def warn_of_weights(backbone: dict[str, Any], source: str) -> None:
    """Say that films to test may be films of the weights' training.

    Args:
        backbone: that section of a configuration.
        source: of the films.
    """
    if shared := shared_with(source, trained_on(backbone)):
        text = (
            f"warning: the weights of {backbone['name']} were trained on {' and '.join(shared)}, "
            f"which may hold the films of {source} that are tested here; then the scores are too "
            "high. Test on another collection"
        )
        say(text, style="bold yellow")


def say(text: str, style: str | None = None) -> None:
    """Print a line, in the first process."""
    if is_first_process():
        make_console().print(text, style=style, highlight=False)


def fill_backbone(backbone: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Load the backbone of an earlier run; averaged weights, if it averaged them.

    Raises:
        InputError: the shapes differ.
    """
    state = part(checkpoint, "backbone.")
    own = backbone.state_dict()
    different = [
        name
        for name in {**own, **state}
        if getattr(own.get(name), "shape", None) is None
        or getattr(state.get(name), "shape", None) != own[name].shape
    ]
    if different:
        raise InputError(
            f"backbone.file holds another form of the network ({different[0]} differs); leave out "
            "backbone.args, or give those of that run"
        )
    backbone.load_state_dict(state)


def fill_head(cfg: Train, model: Any) -> None:
    """Load the head of the earlier run, if its labels and form agree, and say what was done."""
    if (checkpoint := own_checkpoint(cfg)) is not None:
        say(_fill_head(cfg, model, checkpoint))


def _fill_head(cfg: Train, model: Any, checkpoint: Checkpoint) -> str:
    before, now = checkpoint["config"], plain(cfg)
    labels, own = list(before["data"]["labels"]), list(model.labels)
    if sorted(labels) != sorted(own):
        return "the head starts anew: the labels differ"
    for key in HEAD:
        if before["head"][key] != now["head"][key]:
            return f"the head starts anew: head.{key} differs"
    if now["head"]["prior_bias"] or now["head"]["bias_init"] is not None:
        return "the head starts anew: head.prior_bias or head.bias_init sets its biases"
    state = part(checkpoint, "head.")
    order = [labels.index(label) for label in own]
    for name in ("out.weight", "out.bias"):
        state[name] = state[name][order]
    model.head.load_state_dict(state)
    return "the head is that of the earlier run: its labels agree"


def part(checkpoint: Checkpoint, prefix: str) -> dict[str, torch.Tensor]:
    """The weights below a prefix, without it."""
    found = checkpoint["state_dict"].items()
    return {name.removeprefix(prefix): value for name, value in found if name.startswith(prefix)}
