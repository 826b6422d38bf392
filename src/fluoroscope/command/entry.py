"""The entry of every command: help, overrides, errors in one sentence, exit codes.

This module imports nothing heavy, so that `--help` and a misspelt key answer at once.
"""

import re
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluoroscope import __version__
from fluoroscope.command import command_line, run_one
from fluoroscope.commands import CONF, as_called
from fluoroscope.errors import InputError
from fluoroscope.launch import process_setup
from fluoroscope.launch.run_status import BAD_INPUT

FLAGS = """
Flags: --cfg job prints the configuration and runs nothing; --config-dir DIR adds a folder of your
own with DIR/experiment/NAME.yaml; -m starts several runs; --hydra-help lists the others."""


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
        process_setup.end_with_reader()
        print(help_text(doc, config_name))
        return
    if "--version" in sys.argv[1:]:
        print(f"fluoroscope {__version__}")
        return
    process_setup.prepare()
    from fluoroscope.console import clean_output  # rich, which --help does not need

    with run_one.quiet_end(), clean_output():
        try:
            options = command_line.read(sys.argv[1:])
            if command_line.prints(options):
                process_setup.end_with_reader()
            sys.argv[1:] = command_line.ordered(options)
            checked_by = run_one.imported(check) if check else None
            folder = _check_first(config_name, options, checked_by)
            code = _run(config_name, entry, checked_by, folder)
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
    text = [doc.strip(), FLAGS, *groups, "\nKeys and defaults:\n", keys, *choices]
    return as_called("\n".join(text))


def _check_first(
    config_name: str, options: Namespace, check: Callable[..., Any] | None
) -> Path | None:
    """Check the command line before Hydra makes a folder or the first run starts.

    Returns:
        The folder of a sweep; None for one run.

    Raises:
        InputError: if an override, key, value or group does not exist or cannot be used.
    """
    from fluoroscope.command import composition, sweep

    if options.shell_completion or options.hydra_help:
        return None
    folder, jobs = composition.compose_jobs(config_name, options)
    if folder is not None:
        sys.argv[1:] = sweep.placed(sys.argv[1:], folder)
    if check is not None and not command_line.prints(options):
        composition.check_jobs(jobs, check, options, config_name == "train")
    return folder


def _run(
    config_name: str, entry: str, check: Callable[..., Any] | None, sweep_folder: Path | None
) -> int:
    """Start one run, or several with -m; a run that fails does not stop the others.

    Returns:
        The exit code.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from fluoroscope.command import composition, sweep

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
            raise run_one.not_written(error) from None
        if sweep_folder is None and not folders and isinstance(error, composition.HYDRA_ERRORS):
            raise InputError(" ".join(str(error).split())) from None  # of a flag such as --package
        if sweep_folder is None:
            raise
        code = sweep.broken(error)
    except SystemExit:
        if sweep_folder is not None:
            sweep.print_stopped(sweep_folder)
        raise
    finally:
        for folder in folders if process_setup.is_first_process() else []:
            sweep.drop_empty(folder)
    if sweep_folder is not None:
        code = sweep.conclude(sweep_folder, config_name == "train", printed) or code
    return code or (BAD_INPUT if printed else 0)
