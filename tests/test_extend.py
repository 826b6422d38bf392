"""The page on one's own code: its commands and its Python run as they stand there."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fluoroscope.command.command_line import spell_out
from fluoroscope.config.schema import plain
from fluoroscope.launch.run_id import IDENTITY
from fluoroscope.model.head import Head
from fluoroscope.model.timm_optimizer import check_optimizer
from fluoroscope.own_code import trusting
from tests.support.commands import end, start
from tests.support.films import TINY, config
from tests.support.own_package import write_clinic, write_package

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extend.md").read_text()
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
ACTIVATION = SECTIONS["An activation of your own"]
ADDED, OPTIMIZER = SECTIONS["A callback, a logger"], SECTIONS["Optimizer and schedule"]
SCORE, SOURCE = SECTIONS["A score"], SECTIONS["A data source"]
PROJECT = SECTIONS["Your own project beside the clone"]


def commands(text):
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_block_of_the_page_is_run():
    """By the tests below, those of the project by `test_wheel`; two blocks are no code to run."""
    run_here = commands(ACTIVATION + SOURCE + SCORE + ADDED + OPTIMIZER)
    assert {*run_here, *commands(PROJECT)} == {*commands(PAGE)}
    for kind, sections in {"python": [ACTIVATION, SCORE], "yaml": [PROJECT, ADDED]}.items():
        assert PAGE.count(f"```{kind}\n") == sum(part.count(f"```{kind}\n") for part in sections)
    other = re.findall(
        r"^```\n(\S+).*?^```$", re.sub(r"```\w+\n.*?```", "", PAGE, flags=re.S), re.M | re.S
    )
    assert other == ["python", "myproject/"]  # with weights from a hub: see model/test_contracts


@pytest.fixture(scope="module")
def place(films, tmp_path_factory):
    """A working folder with the package of the page, and the run that the page resumes."""
    folder = tmp_path_factory.mktemp("extend")
    write_package(folder)
    first = commands(ACTIVATION)[0].replace("python scripts/train.py ", "")
    run(folder, films, "train", f"{first} run.dir=outputs/RUN trainer.max_epochs=1")
    return folder


def run(place, films, script, words):
    keys = [] if re.search("run.resume|checkpoint", words) else [*TINY, f"data.root={films}"]
    keys += [r"data.patient_pattern='(p\d+)_'"] if keys else []
    given = [word for word in shlex.split(words) if not word.startswith("backbone=")]
    code, out, err = end(start([*keys, *given], place, script=script))
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def of_page(films, tmp_path_factory):
    """A working folder with the package of the page, its YAML files and the run that it resumes."""
    folder = tmp_path_factory.mktemp("added")
    shutil.copytree(ROOT / "docs/examples/mypkg", folder / "mypkg")
    file = yaml.safe_load(re.search(r"```yaml\n(.*?)```", ADDED, re.DOTALL)[1])
    lines = {"lines": {"_target_": "mypkg.watching.JsonLines", "file": "${run.dir}/lines.jsonl"}}
    for name, content in {"callbacks/mine": file, "logger/lines": lines}.items():
        path = folder / f"own/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    first = commands(ADDED)[0].replace("python scripts/train.py ", "")
    run(folder, films, "train", f"{first} run.dir=outputs/RUN trainer.max_epochs=1")
    return folder


@pytest.mark.whole
@pytest.mark.parametrize("command", commands(ADDED)[1:] + commands(OPTIMIZER))
def test_commands_with_callbacks_and_optimizers_run(of_page, films, monkeypatch, command):
    monkeypatch.delenv(IDENTITY, raising=False)  # runs are named after the time
    words = command.replace("python scripts/train.py ", "").replace("seed=1,2,3", "seed=1")
    assert "fluoroscope" in run(of_page, films, "train", f"{words} trainer.max_epochs=2")


@pytest.mark.whole
@pytest.mark.parametrize("command", commands(SCORE))
def test_commands_with_scores_run(of_page, films, command):
    script, words = re.fullmatch(r"python scripts/(\w+)\.py (.*)", command).groups()
    short = {"ablate": " seeds=1 activations=[relu]", "evaluate": ""}.get(script)
    keys = " trainer.max_epochs=1" if script != "evaluate" else ""
    assert "f2" in run(of_page, films, script, words + (short or "") + keys) or script == "ablate"


@pytest.mark.whole
@pytest.mark.parametrize("command", commands(SOURCE))
def test_the_command_with_a_source_runs(of_page, tmp_path, command):
    root = str(write_clinic(tmp_path / "films"))
    words = command.replace("python scripts/train.py ", "").replace("/data/clinic", root)
    keys = [key for key in TINY if key != "data=folder"]
    code, out, err = end(start([*keys, *shlex.split(words), "trainer.max_epochs=1"], of_page))
    assert code == 0, err
    assert "Mass" in out


def test_the_score_on_the_page_is_that_of_the_example():
    example = (ROOT / "docs/examples/mypkg/scores.py").read_text()
    p, y = np.array([0.1, 0.9, 0.6, 0.4]), np.array([0, 1, 0, 1])
    for code in (re.search(r"```python\n(.*?)```", SCORE, re.DOTALL)[1], example):
        space = {}
        exec(code, space)
        assert space["f2"](p, y, 0.5) == 0.5


@pytest.mark.parametrize("command", commands(OPTIMIZER))
def test_commands_with_optimizers_are_well_formed(command):
    words = [w.partition(",")[0] if "[" not in w else w for w in shlex.split(command)[2:]]
    cfg = config("backbone=lite0", *map(spell_out, words[words[0] == "-m" :]))
    check_optimizer(cfg.optimizer.name, plain(cfg)["optimizer"]["args"])


def test_the_class_on_the_page_is_an_activation(own_package):
    own_package(re.search(r"```python\n(.*?)```", ACTIVATION, re.DOTALL)[1])
    with trusting(["mypkg"]):
        head = Head(13, 3, width=17, activation="mypkg.acts.Snake", activation_args={"a": 2.0})
    z = torch.linspace(-3, 3, 17)
    torch.testing.assert_close(head.activation(z), z + torch.sin(2 * z) ** 2 / 2)


@pytest.mark.whole
@pytest.mark.parametrize("command", commands(ACTIVATION)[1:])
def test_commands_run(place, films, command):
    script, words = re.fullmatch(r"python scripts/(\w+)\.py (.*)", command).groups()
    longer = {"ablate": " seeds=1", "evaluate": ""}.get(script, " trainer.max_epochs=2")
    assert "fluoroscope" in run(place, films, script, words + longer) or script == "ablate"
