"""`scripts/train.py` in the tests' own process."""

import os
import signal
import sys
import warnings

import pytest
from hydra.core.global_hydra import GlobalHydra

from fluoroscope.command.entry import command
from fluoroscope.launch.run_id import IDENTITY
from tests.support.films import TINY


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """`scripts/train.py` in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-settings"))
    for name in ("HYDRA_FULL_ERROR", "NO_ALBUMENTATIONS_UPDATE", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # set by the command; restored after it
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        monkeypatch.delenv(IDENTITY, raising=False)
        GlobalHydra.instance().clear()
        code = 0
        try:
            command("", "train", "fluoroscope.train:main", "fluoroscope.config.train:check_run")
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)
    GlobalHydra.instance().clear()


@pytest.fixture
def tiny(films):
    return [*TINY, f"data.root={films}", r"data.patient_pattern='(p\d+)_'", "trainer.max_epochs=1"]
