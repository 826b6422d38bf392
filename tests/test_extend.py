"""The page on one's own code: its commands and its Python run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from fluoroscope.model.head import Head
from fluoroscope.own_code import trusting
from tests.support.commands import end, start
from tests.support.films import TINY
from tests.support.own_package import write_package

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extend.md").read_text()
ACTIVATION = PAGE.partition("## An activation of your own")[2].partition("\n## ")[0]


def commands(text):
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


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
