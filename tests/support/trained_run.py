"""A tiny run that was trained in the tests' own process."""

from pathlib import Path

from fluoroscope.train import train
from tests.support.films import tiny_config


def write_run(films: Path, folder: Path, *overrides: str) -> Path:
    """Train on `films` and leave a run folder, with its `config.yaml`."""
    keys = ["head.norm=layer", "diagnostics.enabled=false", *overrides]
    train(tiny_config(films, *keys), folder, keys)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by their place in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
