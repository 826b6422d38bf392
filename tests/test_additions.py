"""A user adds one of each kind of thing to a clone: none of the tests goes red."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = '''\
"""A hospital's own archive."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import one_of
from fluoroscope.data.study_table import Collection, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root


@dataclass
class Keys(Data):
    ward: str = one_of("north", "south")
    archive: str = MISSING


def read(
    root: str | Path | None, labels: Sequence[str] | None = None, ward: str = "", archive: str = ""
) -> Collection:
    import pandas as pd

    images = sorted(existing_root(root).glob(f"{ward}/{archive}/*.png"))
    if not images:
        raise InputError("the archive is empty; set data.splits=own and another data.archive")
    return Collection(study_table(images, pd.DataFrame({"Mass": [1.0] * len(images)})), Path("."))
'''
COMMAND = '''\
"""Count the images of an archive.

Examples:
  python scripts/count.py root=DIR
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(__doc__, "count", "fluoroscope.sources.archive:read")
'''
CALLBACK = """
from pytorch_lightning import Callback


class Ours(Callback):
    def __init__(self, every):
        self.every = every
"""
NEW = {
    "src/fluoroscope/sources/archive.py": SOURCE,
    "conf/data/archive.yaml": "source: archive\nroot: ???\nward: north\narchive: ???\n",
    "conf/backbone/resnet.yaml": (
        "# @package _global_\n"
        "backbone: {name: resnet18.a1_in1k, weights: none}\n"
        "data: {image_px: 224, batch_size: 32}\n"
    ),
    "conf/experiment/ours.yaml": "# @package _global_\nhead: {width: 64}\n",
    "conf/trainer/laptop.yaml": "defaults: [auto]\nmax_epochs: 2\n",
    "conf/logger/ours.yaml": "defaults: [csv]\n",
    "conf/callbacks/ours.yaml": "ours:\n  _target_: ourpackage.Ours\n  every: 3\n",
    "conf/optimizer/ours.yaml": "name: nadamw\nlr: 1.0e-3\nargs: {betas: [0.9, 0.98]}\n",
    "conf/schedule/ours.yaml": "defaults: [step]\nmilestones: [0.3, 0.8]\n",
    "ourpackage.py": CALLBACK,
    "conf/count.yaml": "defaults:\n  - _self_\nroot: ???\n",
    "scripts/count.py": COMMAND,
    "docs/ours.md": "# Ours\n\n`python scripts/count.py root=DIR`\n",
}
CHANGED = {  # a line after which another is added
    "src/fluoroscope/model/activation_table.py": (
        '    "identity": Activation("torch.nn:Identity"),\n',
        '    "hardshrink": Activation("torch.nn:Hardshrink", ("lambd",)),\n',
    ),
    "src/fluoroscope/model/scores.py": (
        '        "specificity": _ratio(tn, tn + fp),\n',
        '        "npv": _ratio(tn, tn + fn),\n',
    ),
}
CONCERNED = [
    *("model/test_activations", "model/test_scores", "model/test_head", "diagnostics/test_census"),
    *("diagnostics/test_edges", "diagnostics/test_truth", "diagnostics/test_keys"),
    *("config/test_config", "config/test_loaded", "config/test_ranges", "config/test_shareable"),
    *("sources/test_sources", "sources/test_new_source", "sources/test_findings"),
    *("tracking/test_dashboard", "command/test_entry", "command/test_program"),
    *("run/test_refusals", "evaluation/test_files", "reporting/test_report"),
    *("test_core_path", "test_imports", "test_wheel", "benchmarks/test_options", "test_front_door"),
    *("run/test_added", "model/test_timm_optimizer", "model/test_schedules", "test_front_door"),
    "test_extend",
]
ADVICE = "tests/config/test_advice.py::test_the_files_that_are_known_here_advise_a_value"
USED = """
from fluoroscope.command.entry import command

command("", "train", "builtins:print", "fluoroscope.config.train:check_run")
"""


def add_one_of_each(root):
    for name, text in NEW.items():
        (root / name).write_text(text)
    for name, (line, addition) in CHANGED.items():
        text = (root / name).read_text()
        assert text.count(line) == 1
        (root / name).write_text(text.replace(line, line + addition))
    scores = root / "src/fluoroscope/model/scores.py"
    scores.write_text(scores.read_text().replace('"brier")\n', '"brier", "npv")\n', 1))


@pytest.fixture
def clone(tmp_path):
    """A copy of this clone with the additions."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in files.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    add_one_of_each(tmp_path)
    return tmp_path


def test_what_is_added_can_be_used(clone):
    """By a command, up to where it would train."""
    groups = ("callbacks", "optimizer", "schedule", "logger", "experiment")
    words = [*(f"{group}=ours" for group in groups), "backbone=resnet", "trainer=laptop"]
    words += ["data=archive", "data.root=.", "data.archive=a", "head.activation=hardshrink"]
    done = subprocess.run(
        [sys.executable, "-c", USED, *words],
        cwd=clone,
        env=os.environ | {"PYTHONPATH": str(clone / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for part in ("ourpackage.Ours", "nadamw", "[0.3, 0.8]", "resnet18.a1_in1k", "hardshrink"):
        assert part in done.stdout, done.stdout


@pytest.mark.whole
def test_no_test_goes_red(clone):
    tests = [*(f"tests/{name}.py" for name in CONCERNED), ADVICE]
    quiet = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    env = os.environ | {"PYTHONPATH": str(clone / "src")}
    done = subprocess.run(
        [*quiet, *tests], cwd=clone, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]
