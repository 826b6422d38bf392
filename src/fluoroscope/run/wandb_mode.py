"""Decide whether a run goes to W&B online, offline or not at all, without waiting for a server."""

import netrc
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from fluoroscope.errors import InputError, check_choice
from fluoroscope.launch.answers import answers

# The client's modes, and this project's names for them.
MODES = {"online": "online", "run": "online", "shared": "online"} | {
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
ANSWER_TIMEOUT_S = 3.0


def choose_mode(mode: str) -> tuple[str, str]:
    """Return `online`, `offline` or `off`, and a line that says why.

    `auto` follows WANDB_MODE and the setting that `wandb offline` or `wandb disabled` stored. If
    neither is set, it is `online` if there is a key and the server answers, else `offline`.

    Raises:
        InputError: if WANDB_MODE is not one of W&B's modes, or `online` has no key.
    """
    if mode == "online" and not _has_key(client().setup().settings):
        raise InputError(
            "logger.mode=online needs a key of W&B: run `wandb login`, or set logger.mode=offline"
        )
    if mode != "auto":
        return mode, f"W&B {mode}: logger.mode={mode}"
    settings = client().setup().settings
    chosen = MODES[os.environ.get("WANDB_MODE", settings.mode)]
    if "WANDB_MODE" in os.environ:
        return chosen, f"W&B {chosen}: WANDB_MODE"
    if chosen != "online":
        return chosen, f"W&B {chosen}: `wandb {settings.mode}` was run before"
    if not _has_key(settings):
        return "offline", "W&B offline: no key is set (`wandb login` sets one)"
    if not answers(settings.base_url, ANSWER_TIMEOUT_S):
        return "offline", f"W&B offline: no answer within {ANSWER_TIMEOUT_S:.0f} s from the server"
    return "online", "W&B online"


def check_online(purpose: str) -> None:
    """Refuse a job that needs the server if W&B is not online.

    Args:
        purpose: of the connection, the start of the error's sentence.

    Raises:
        InputError: if there is no key, no answer, or another mode is set.
    """
    mode, reason = choose_mode("auto")
    if mode != "online":
        raise InputError(f"{purpose}: {reason.partition(': ')[2]}")


def client() -> Any:
    """Import wandb and keep it quiet: this project prints its own lines about the run."""
    check_choice("WANDB_MODE", os.environ.get("WANDB_MODE", "online"), MODES)
    # The package reads both once, when it first needs its settings.
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # tracebacks, with their paths
    import wandb

    return wandb


def _has_key(settings: Any) -> bool:
    return bool(settings.api_key or settings.identity_token_file or _netrc_key(settings.base_url))


def _netrc_key(url: str) -> str | None:
    """The key that `wandb login` stored for a server."""
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        entry = netrc.netrc(path).authenticators(urllib.parse.urlsplit(url).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return entry[2] if entry else None
