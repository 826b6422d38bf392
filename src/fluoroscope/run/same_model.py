"""Check that a command which finds a run in its folder is the one that started it."""

from pathlib import Path

from fluoroscope.config.added import check_repeated
from fluoroscope.config.loaded import differences, load_file, value_at
from fluoroscope.config.run_checks import is_of_model
from fluoroscope.config.schema import plain
from fluoroscope.config.stored_yaml import short
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder


def check_same_model(cfg: Train, folder: Path) -> None:
    """Refuse a command that would train another model than the one that started the run.

    A momentum of batch norm that the run took from its length stays what it was.

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
        else:
            raise InputError(
                f"the run in {folder} has {key}={short(then)}, but this command has {key}={value}; "
                "give another run.dir, or repeat the command that started the run"
            )
