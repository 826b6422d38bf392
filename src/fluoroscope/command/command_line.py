"""Hydra's flags, in any place of the command line, and those that a command does not take."""

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fluoroscope.config import OPEN_KEYS
from fluoroscope.errors import InputError

# Callbacks and loggers of the user's own, see `config.added`.
ADDED = re.compile(r"callbacks\.|logger\.[^.=]+(\.|=.*_target_)")
OWN_SOURCE = "data=own"  # a source of the user, with keys that no file in conf/ lists
GRID_KEYS = "grid."  # of scripts/ablate.py: lists of values for any keys of head and optimizer
EXPERIMENT = (
    "each command reads its own file in conf/; put changes into DIR/experiment/NAME.yaml and add "
    "--config-dir DIR experiment=NAME"
)
REFUSED = {
    "--config-name": EXPERIMENT,
    "--config-path": EXPERIMENT,
    "--experimental-rerun": (
        "it would run code from a file; repeat the overrides in the run's provenance.json, or "
        "continue the run with run.resume=RUN"
    ),
}
JOBS = ("--run", "--multirun", "--cfg", "--info", "--shell-completion", "--hydra-help")
OF_CFG = ("--resolve", "--package")


def read(words: Sequence[str]) -> Namespace:
    """The overrides and Hydra's flags, by Hydra's own names.

    Raises:
        InputError: an unknown flag, one that a command does not take, or flags that do not fit.
    """
    parser = _parser()
    options, unknown = parser.parse_known_intermixed_args(
        [spell_out(w, OWN_SOURCE in words) for w in words]
    )
    if unknown:
        raise InputError(f"there is no option {unknown[0]}; keys are set as KEY=VALUE, e.g. seed=2")
    given = _given(parser, options)
    for flag in given:
        if flag in REFUSED:
            raise InputError(f"{flag} is not available: {REFUSED[flag]}")
    if len(jobs := [flag for flag in given if flag in JOBS]) > 1:
        raise InputError(f"{' and '.join(jobs)} cannot be combined; leave one out")
    for flag in OF_CFG:
        if flag in given and options.cfg is None:
            raise InputError(f"{flag} changes what --cfg prints; add --cfg job")
    if options.config_dir is not None:
        options.config_dir = str(Path(options.config_dir).expanduser().absolute())
        if not Path(options.config_dir).is_dir():
            raise InputError(f"--config-dir: there is no folder {options.config_dir}")
    return options


def ordered(options: Namespace) -> list[str]:
    """The same command line with its flags first: Hydra reads no override after a flag's value."""
    given = _given(_parser(), options)
    flags = [flag if value is True else f"{flag}={value}" for flag, value in given.items()]
    return [*flags, *options.overrides]


def prints(options: Namespace) -> bool:
    """Whether Hydra prints something, such as the configuration, and runs nothing."""
    return any((options.cfg, options.info, options.hydra_help, options.shell_completion))


def spell_out(argument: str, own_source: bool = False) -> str:
    """Put ++ before new keys, as Hydra requires, and expand the ~ of `data.root=~/x`.

    Args:
        own_source: `data.*` are keys of a source that the user has written.
    """
    key, equals, value = argument.partition("=")
    if value == "~" or value.startswith("~/"):
        value = os.path.expanduser(value)
    opened = (*OPEN_KEYS, GRID_KEYS, *(["data."] if own_source else []))
    new = key.startswith(opened) or ADDED.match(argument)
    return f"{'++' if new else ''}{key}{equals}{value}"


def _parser() -> ArgumentParser:
    from hydra.main import get_args_parser

    parser: ArgumentParser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    return parser


def _refuse(message: str) -> NoReturn:
    raise InputError(f"{message}; --hydra-help lists the flags")


def _given(parser: ArgumentParser, options: Namespace) -> dict[str, object]:
    """Values of the flags that are set, by their long names."""
    values = {
        max(action.option_strings, key=len): getattr(options, action.dest, None)
        for action in parser._actions
        if action.option_strings
    }
    return {flag: value for flag, value in values.items() if value not in (None, False)}
