"""The programs and the numbers of docs/export.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution, requires
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from pydicom import dcmread
from pydicom.data import get_testdata_file

from fluoroscope.export import onnx_file
from fluoroscope.files.images import fit_square, read_image
from tests.export.models import TEMPERATURES, expected, pixels

PAGE = (Path(__file__).parents[2] / "docs/export.md").read_text()
RUN, PREPARE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FILM = get_testdata_file("RG1_UNCR.dcm", download=False)


@pytest.fixture
def place(model_onnx, tmp_path):
    """A folder with `model.onnx` of three labels."""
    shutil.copy(model_onnx, tmp_path / "model.onnx")
    return tmp_path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder of packages that holds onnxruntime, numpy and what they need, and nothing else."""
    folder, waiting, found = tmp_path_factory.mktemp("packages"), ["onnxruntime", "numpy"], set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for part in {file.parts[0] for file in distribution(name).files} - {".."}:
            link, real = folder / part, Path(distribution(name).locate_file(part))
            if real.exists() and not link.exists():
                link.symlink_to(real.resolve())
        needed = map(Requirement, requires(name) or [])
        waiting += [need.name for need in needed if not need.marker or need.marker.evaluate()]
    assert "torch" not in found
    return folder


def run_alone(packages, place, program):
    """A program in a Python that sees these packages and no others."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", "-s", "-B", "-c", program]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)


def test_the_program_for_onnxruntime_has_ten_lines():
    assert len(RUN.strip().splitlines()) <= 12  # with a blank one


@pytest.mark.parametrize("module", ["torch", "fluoroscope", "cv2", "timm"])
def test_the_packages_alone_do_not_hold(alone, place, module):
    done = run_alone(alone, place, f"import {module}")
    assert "ModuleNotFoundError" in done.stderr


def test_the_program_runs_with_onnxruntime_and_numpy_alone(alone, place, network):
    images = pixels(5)
    np.save(place / "films.npy", images)
    done = run_alone(alone, place, f"{RUN}\nimport sys\nprint('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
    *_, with_torch = done.stdout.split()
    assert with_torch == "False"
    found = run_alone(alone, place, f"{RUN}\nprint('JSON', probability.tolist())")
    found = json.loads(found.stdout.partition("JSON")[2])
    np.testing.assert_allclose(found, expected(network, images), atol=2e-5)
    for label in TEMPERATURES:
        assert label in done.stdout


def prepared(folder, side_px):
    """`films.npy` as the page's program writes it for the film."""
    program = PREPARE.replace("S = 224", f"S = {side_px}").replace("film.dcm", FILM)
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(program, "docs/export.md", "exec"), {})
    finally:
        os.chdir(before)
    return np.load(folder / "films.npy")


@pytest.mark.parametrize("side_px", [48, 224, 381])
def test_the_program_for_dicom_gives_the_pixels_of_the_training(tmp_path, side_px):
    found = prepared(tmp_path, side_px)
    assert (found.dtype, found.shape) == (np.uint8, (1, 1, side_px, side_px))
    np.testing.assert_array_equal(found[0, 0], fit_square(read_image(FILM), side_px))


def test_the_values_of_the_film_are_those_of_the_table():
    gray = read_image(FILM)
    arrays = {"stored": dcmread(FILM).pixel_array, "8 bits": gray, "224 px": fit_square(gray, 224)}
    rows = re.findall(r"^\| (stored|8 bits|224 px) \| (.*?) \| ([\d.]+) \|$", PAGE, re.M)
    assert len(rows) == 12
    for name, where, value in rows:
        array = arrays[name]
        found = array.mean() if where == "mean" else array[tuple(map(int, where.split(", ")))]
        assert round(float(found), 2) == float(value), (name, where)


def test_the_film_goes_through_the_file_as_through_the_checkpoint(place, network):
    image = prepared(place, 48)
    found = onnx_file.open_file(place / "model.onnx", 1)(image)
    with torch.no_grad():
        assert np.abs(found - expected(network, image)).max() < 2e-5
