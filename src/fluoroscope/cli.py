"""What every command shares: help, overrides, errors in one sentence, a clean end.

Nothing heavy is imported here, so that `--help` and a misspelt key answer at once.
"""

import importlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluoroscope.errors import InputError

CONF = Path(__file__).resolve().parents[2] / "conf"
BAD_INPUT = 2


def command(doc: str, config_name: str, entry: str, check: str | None = None) -> None:
    """Run a command of `scripts/`.

    Args:
        doc: its help, with examples.
        config_name: its primary configuration in `conf/`.
        entry: `module:function`, called with the configuration;
            imported only after `check`, a light `module:function` that returns the typed
            configuration or refuses it.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(doc, config_name))
        return
    # A kill from a scheduler becomes an exception, so that logs are flushed and closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # By this documented switch Hydra raises its errors instead of printing them; see `_explain`.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        _run(config_name, entry, check)
    except InputError as error:
        _stop(error)


def help_text(doc: str, config_name: str) -> str:
    """The command's docstring, the config groups and the default configuration."""
    groups = sorted(path for path in CONF.iterdir() if path.is_dir())
    lines = [
        f"  {group.name}={'|'.join(sorted(file.stem for file in group.glob('*.yaml')))}"
        for group in groups
    ]
    default = (CONF / f"{config_name}.yaml").read_text()
    keys = default[: default.find("\nhydra:")].strip()
    return "\n".join(
        [doc.strip(), "\nGroups (conf/GROUP/CHOICE.yaml):", *lines, "\nKeys and defaults:\n", keys]
    )


def _run(config_name: str, entry: str, check: str | None) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_new_resolver("either", lambda a, b: a or b, replace=True)

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
    def task(cfg: Any) -> None:
        warnings.filterwarnings("ignore", category=FutureWarning)
        if check is not None:
            cfg = _named(check)(cfg)
        _named(entry)(cfg)

    try:
        task()
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, config_name) from None


def _named(place: str) -> Callable[..., Any]:
    module, function = place.split(":")
    return getattr(importlib.import_module(module), function)


def _explain(error: Exception, config_name: str) -> InputError:
    """Hydra's and OmegaConf's errors in the words of this project."""
    from hydra import compose, initialize_config_dir

    from fluoroscope.config import unknown_key

    text = "\n".join(str(e) for e in (error, error.__cause__) if e is not None)
    if match := re.search(r"Could not override '([^']+)'", text):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            overrides = [a for a in sys.argv[1:] if re.match(r"(data|trainer|logger)=\w+$", a)]
            return unknown_key(match[1], compose(config_name, overrides))
    if match := re.search(r"Could not find '([\w/]+)/([^/']+)'", text):
        from fluoroscope.errors import check_choice

        try:
            check_choice(match[1], match[2], (f.stem for f in (CONF / match[1]).glob("*.yaml")))
        except InputError as refusal:
            return refusal
    return InputError(" ".join(text.split()))


def _stop(error: InputError) -> None:
    print(f"fluoroscope: {error}", file=sys.stderr)
    sys.exit(BAD_INPUT)
