import shutil

import pytest

from fluoroscope import build
from fluoroscope.trained.calibration import save_calibration
from fluoroscope.trained.inputs import measure
from fluoroscope.trained.loading import open_trained
from fluoroscope.trained.stored_calibration import load_calibration


@pytest.fixture(scope="session")
def ready(trained_run, tmp_path_factory):
    """A run that was evaluated: with calibration and input statistics."""
    folder = tmp_path_factory.mktemp("ready") / "run"
    shutil.copytree(trained_run, folder)
    trained = open_trained(folder, "cpu")
    table = build.build_studies(trained.config).table
    inputs = measure(trained, table, num_workers=0)
    save_calibration(folder, load_calibration(trained)._replace(inputs=inputs))
    return folder
