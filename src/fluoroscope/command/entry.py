"""The entry of every command: help, overrides, errors in one sentence, exit codes.

This module imports nothing heavy, so that `--help` and a misspelt key answer at once.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fluoroscope.command import run_one
from fluoroscope.config import CONF, OPEN_KEYS
from fluoroscope.errors import InputError, check_choice
from fluoroscope.launch import process_setup
from fluoroscope.launch.run_status import BAD_INPUT

SWEEP = ("-m", "--multirun")
GRID_KEYS = "grid."  # of scripts/ablate.py: lists of values for any keys of head and optimizer


def command(doc: str, config_name: str, entry: str, check: str | None = None) -> None:
    """Run a command of `scripts/`.

    Args:
        doc: the command's help, with examples.
        config_name: the command's primary configuration in `conf/`.
        entry: `module:function`, called with the configuration, imported after the check.
        check: `module:function` without heavy imports; it takes the configuration and the
            overrides, and returns the typed configuration or raises InputError.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(doc, config_name))
        return
    process_setup.prepare()
    try:
        arguments = [_spell_out(argument) for argument in sys.argv[1:]]
        sys.argv[1:] = sorted(arguments, key=lambda a: a not in SWEEP)  # Hydra wants -m first
        folder = _check_first(config_name, run_one.imported(check) if check else None)
        code = _run(config_name, entry, run_one.imported(check) if check else None, folder)
    except InputError as error:
        run_one.print_error(error)
        code = BAD_INPUT
    if code:
        sys.exit(code)


def help_text(doc: str, config_name: str) -> str:
    """The command's docstring, the config groups and the default configuration."""
    default = (CONF / f"{config_name}.yaml").read_text()
    listed = default + (CONF / "train.yaml").read_text() * ("\n  - train\n" in default)
    used = [path for path in sorted(CONF.iterdir()) if re.search(rf"- .*{path.name}: ", listed)]
    lines, pages = [], []
    for group in used:
        files = sorted(group.glob("*.yaml"))
        lines.append(f"  {group.name}={'|'.join(file.stem for file in files)}")
        pages += [f"# --- {group.name}={file.stem} ---\n{file.read_text()}" for file in files]
    keys = default.partition("\nhydra:")[0].strip()
    groups = ["\nGroups (conf/GROUP/CHOICE.yaml):", *lines] if used else []
    choices = ["\nWhat the choices set:\n", *pages] if used else []
    return "\n".join([doc.strip(), *groups, "\nKeys and defaults:\n", keys, *choices])


def _spell_out(argument: str) -> str:
    """Put ++ before new keys, as Hydra requires, and expand the ~ of `data.root=~/x`."""
    key, equals, value = argument.partition("=")
    if value == "~" or value.startswith("~/"):
        value = os.path.expanduser(value)
    return f"{'++' if key.startswith((*OPEN_KEYS, GRID_KEYS)) else ''}{key}{equals}{value}"


def _check_first(config_name: str, check: Callable[..., Any] | None) -> Path | None:
    """Check the command line before Hydra makes a folder or the first run starts.

    Returns:
        The folder of a sweep; None for one run.

    Raises:
        InputError: if an option, override, key, value or group does not exist.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from hydra.main import get_args_parser
    from omegaconf.errors import OmegaConfBaseException

    from fluoroscope.command import sweep

    run_one.register_resolvers()
    options, unknown = get_args_parser().parse_known_args()
    if unknown:
        raise InputError(f"there is no option {unknown[0]}; keys are set as KEY=VALUE, e.g. seed=2")
    several = [o for o in options.overrides if re.match("hydra/(sweeper|launcher)=", o)]
    if several and not options.multirun:
        raise InputError(f"{several[0]} is for several runs; add -m")
    folder, jobs = None, [options.overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            if options.multirun:
                folder, jobs = sweep.plan(config_name, options.overrides)
                sys.argv.append(sweep.place(folder))
            composed = [compose(config_name, overrides) for overrides in jobs]
        except InputError:
            raise
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise _explain(error, config_name, options.overrides) from None
        if check is None or any(a.startswith("-") and a not in SWEEP for a in sys.argv[1:]):
            return folder  # with another option, such as --cfg, Hydra prints and runs nothing
        for cfg, overrides in zip(composed, jobs, strict=True):
            check(cfg, [o for o in overrides if not re.match("hydra[./]", o)])
    return folder


def composed(config_name: str, overrides: Sequence[str]) -> Any:
    """A configuration changed by overrides, for a command that is not run by Hydra.

    Raises:
        InputError: if an override, key or group does not exist.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    run_one.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose(config_name, [_spell_out(override) for override in overrides])
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise _explain(error, config_name, list(overrides)) from None


def _run(
    config_name: str, entry: str, check: Callable[..., Any] | None, sweep_folder: Path | None
) -> int:
    """Start one run, or several with -m; a run that fails does not stop the others.

    Returns:
        The exit code.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from fluoroscope.command import sweep

    folders: list[Path] = []
    printed: list[str] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
    def task(cfg: Any) -> Any:  # launchers may call it in other processes
        folders.append(Path(HydraConfig.get().runtime.output_dir))
        return run_one.run(cfg, entry, check, folders[-1], printed)

    sweep.quiet_optuna()
    code = 0
    try:
        task()
    except Exception as error:
        made = bool(folders) or (sweep_folder is not None and sweep_folder.exists())
        if isinstance(error, OSError) and not made:
            raise InputError(
                f"run.dir: cannot make the run folder {error.filename} ({error.strerror})"
            ) from None
        if sweep_folder is None:
            raise
        code = sweep.broken(error)
    finally:
        for folder in folders if process_setup.is_first_process() else []:
            _drop_empty(folder)
    if sweep_folder is not None:
        code = sweep.conclude(sweep_folder, config_name == "train", printed) or code
    return code or (BAD_INPUT if printed else 0)


def _drop_empty(folder: Path) -> None:
    """Remove the folder that Hydra made for a run that was then refused."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    sweep = folder.parent / "multirun.yaml"
    if sweep.is_file() and list(folder.parent.iterdir()) == [sweep]:
        sweep.unlink()
        folder.parent.rmdir()


def _explain(error: Exception, config_name: str, overrides: list[str]) -> InputError:
    """Turn an error of Hydra or OmegaConf into an `InputError` of this project."""
    from hydra import compose
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException

    from fluoroscope.config.run_checks import unknown_key

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
        chosen = [o for o in overrides if re.fullmatch(r"(data|trainer|logger)=\w+", o)]
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
        key, _, value = override.partition("=")
        if key and (CONF / key).is_dir() and not (CONF / key / f"{value}.yaml").exists():
            return _unknown_choice(key, value, (file.stem for file in (CONF / key).glob("*.yaml")))
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
