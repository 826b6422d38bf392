"""Check that a command which finds a run in its folder is the one that started it."""

from pathlib import Path
from typing import Any

from fluoroscope.config.added import check_repeated
from fluoroscope.config.loaded import differences, load_file, value_at
from fluoroscope.config.run_checks import is_of_model
from fluoroscope.config.schema import plain
from fluoroscope.config.stored_yaml import short
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder

# Keys that `starting_weights.settle` has taken from the weights, unless the command gave them.
SETTLED = ("backbone.args.", "backbone.contract.")


def check_same_model(cfg: Train, folder: Path) -> None:
    """Refuse a command that would train another model than the one that started the run.

    What the run has settled stays what it was: a momentum of batch norm that it took from its
    length, and the form and the contract of a network that it took from pretrained weights.

    Args:
        folder: of that run.

    Raises:
        InputError: names the first key that differs, or a callback or logger that is lacking.
    """
    file = folder / run_folder.CONFIG
    before, now = load_file(file, Train).announced(), plain(cfg)
    check_repeated(before, now, file)
    for key in filter(is_of_model, differences(before, now)):
        then, value = value_at(before, key), value_at(now, key)
        if key == "head.norm_momentum" and value == "auto":
            cfg.head.norm_momentum = then
        elif not (key.startswith(SETTLED) and value is None and _has_weights(now)):
            raise InputError(
                f"the run in {folder} has {key}={short(then)}, but this command has {key}={value}; "
                "give another run.dir, or repeat the command that started the run"
            )
    if _has_weights(now):
        cfg.backbone.args = before["backbone"]["args"]
        cfg.backbone.contract = before["backbone"]["contract"]


def _has_weights(config: dict[str, Any]) -> bool:
    return config["backbone"]["weights"] in ("hub", "file")
