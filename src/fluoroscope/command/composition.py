"""Compose the configuration of a command line, and explain what Hydra cannot compose."""

import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from fluoroscope.command import own_files, run_one, sweep
from fluoroscope.command.command_line import OWN_SOURCE, spell_out
from fluoroscope.config import CONF
from fluoroscope.config.run_checks import unknown_key
from fluoroscope.config.trust import trusted_today
from fluoroscope.errors import InputError, NotHereError, check_choice
from fluoroscope.own_code import trusting

GROUPS = "data|trainer|logger|optimizer|schedule|callbacks"  # whose files add keys
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError, TypeError)
Jobs = list[tuple[Any, list[str]]]  # configuration and overrides of each


def compose_jobs(config_name: str, options: Namespace) -> tuple[Path | None, Jobs]:
    """The configuration of a run, or those of sample runs of a sweep, see `sweep.plan`.

    Returns:
        The folder of the sweep, None for one run; the configurations with their overrides.

    Raises:
        InputError: an override, key or group does not exist.
    """
    overrides, folder = options.overrides, None
    several = [o for o in overrides if re.match("hydra/(sweeper|launcher)=|hydra.mode=", o)]
    if several and not options.multirun:
        raise InputError(f"{several[0]} is for several runs; add -m")
    jobs = [overrides]
    with (
        own_files.named(options.config_dir, overrides),
        _open_configurations(options.config_dir),
    ):
        try:
            if options.multirun:
                folder, jobs = sweep.plan(config_name, overrides)
            return folder, [(compose(config_name, job), job) for job in jobs]
        except InputError:
            raise
        except HYDRA_ERRORS as error:
            raise _explain(error, config_name, overrides) from None


def check_jobs(
    jobs: Jobs, check: Callable[..., Any], options: Namespace, trains: bool = False
) -> list[Any]:
    """Check all configurations; those that name a thing this machine lacks are refused last.

    Args:
        trains: whether the jobs of a sweep build models, see `sweep.check_models`.
    """
    checked, lacking = [], []
    for cfg, overrides in jobs:
        try:
            with trusting(trusted_today(cfg)), own_files.named(options.config_dir, overrides):
                checked.append(check(cfg, [o for o in overrides if not re.match("hydra[./]", o)]))
        except NotHereError as error:
            lacking.append(error)
    if lacking:
        raise lacking[0]
    if trains and options.multirun:
        with trusting(set().union(*(trusted_today(cfg) for cfg, _ in jobs))):
            sweep.check_models(checked)
    return checked


def composed(config_name: str, overrides: Sequence[str]) -> Any:
    """A configuration changed by overrides, for a command that is not run by Hydra.

    Raises:
        InputError: if an override, key or group does not exist.
    """
    with _open_configurations():
        try:
            return compose(config_name, [spell_out(o, OWN_SOURCE in overrides) for o in overrides])
        except HYDRA_ERRORS as error:
            raise _explain(error, config_name, list(overrides)) from None


@contextmanager
def _open_configurations(own: str | None = None) -> Iterator[None]:
    """Let `compose` read `conf/`, and after it a folder of the user's own.

    Hydra's own `initialize_config_dir` takes one folder.
    """
    run_one.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        if own is not None:
            path = create_config_search_path(str(CONF))
            path.prepend("command-line", f"file://{own}", anchor="schema")  # as hydra.main does
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2("app", path)
        yield


def _explain(error: Exception, config_name: str, overrides: list[str]) -> InputError:
    """Turn an error of Hydra or OmegaConf into an `InputError` of this project."""
    if isinstance(error, OverrideParseException):
        return InputError(
            f"cannot read {error.override!r}: keys are set as KEY=VALUE, lists as 'KEY=[A,B]', "
            "text with brackets, commas or = as 'KEY=\"TEXT\"'"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return _unknown_choice(group, choice, error.options or [])
    text = "\n".join(str(e) for e in (error, error.__cause__) if e is not None)
    if match := re.search(r"Could not override '([^']+)'", text):
        chosen = [o for o in overrides if re.fullmatch(rf"({GROUPS})=\w+", o)]
        try:
            known = compose(config_name, chosen)
        except HydraException:  # this command does not have all those groups
            known = compose(config_name)
        return unknown_key(match[1], known)
    if match := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text):
        return InputError(
            f"{match[1]} has several values: a list is '{match[1]}=[{match[2]}]', one run each "
            f"is -m {match[1]}={match[2]}"
        )
    for override in overrides:
        group, _, value = override.lstrip("+~").partition("=")
        choices = GlobalHydra.instance().config_loader().get_group_options(group) if group else []
        if choices and value not in choices:
            return _unknown_choice(group, value, choices)
    return InputError(" ".join(text.split()))


def _unknown_choice(group: str, choice: str, choices: Iterable[str]) -> InputError:
    try:
        check_choice(group, choice, choices)
    except InputError as refusal:
        plugin = {"hydra/sweeper": "optuna", "hydra/launcher": "launchers"}.get(group)
        if plugin is None:
            return refusal
        return InputError(f"{refusal}; more come with pip install -e '.[{plugin}]'")
    return InputError(f"{group}={choice} cannot be read")
