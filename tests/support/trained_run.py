"""A tiny run that was trained in the tests' own process."""

from pathlib import Path

from fluoroscope.train import train
from tests.support.films import tiny_config


def write_run(films: Path, folder: Path, *overrides: str) -> Path:
    """Train on `films` and leave a run folder, with its `config.yaml`."""
    keys = ["head.norm=layer", "diagnostics.enabled=false", *overrides]
    train(tiny_config(films, *keys), folder, keys)
    return folder
