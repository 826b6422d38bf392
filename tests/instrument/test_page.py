"""docs/watch.md: its examples run, and its tables are those of the code."""

import re
from pathlib import Path

import pytest
from torch import nn

from benchmarks import watch as peers
from fluoroscope.diagnostics.layer_metrics import LayerSums
from fluoroscope.instrument import Units

PAGE = (Path(__file__).parents[2] / "docs/watch.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(example, capsys):
    if "hugging_face" in example:
        pytest.importorskip("transformers")
    place = {}
    exec(example, place)
    if "numbers" in place:
        assert {"units/train/1/dead_frac", "units/eval/1/dead_frac"} <= place["numbers"].keys()
        assert "Sequential: activations" in capsys.readouterr().out


def table(title):
    rows = PAGE.partition(title)[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows if "|" in row]


def test_the_numbers_of_the_page_are_those_of_the_code():
    documented = {row[0].strip("`") for row in table("| number | meaning |\n")[1:]}
    assert documented == {*LayerSums().numbers(), "units/train/grad_l2"}


def test_the_readers_of_the_page_exist():
    units = Units(nn.ReLU())
    rows = table("| read | it gives |\n")[1:]
    assert len(rows) == 8
    for row in rows:
        assert hasattr(units, re.match(r"`units\.(\w+)", row[0])[1])
    units.close()


@pytest.mark.whole
@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
def test_the_peers_say_what_the_page_says(name):
    rows = {row[0]: row[1:] for row in table("| activation | dead units |")[2:]}
    assert list(rows) == list(peers.ACTIVATIONS)
    said, units = peers.say(name)
    assert rows[name] == [f"{100 * value:.1f} %" for value in said]
    assert said.truth == said.watch
    dead = units.channels("train")["dead"].to_numpy()
    assert dead[: peers.DEAD].all()
    assert not dead[peers.DEAD :].any()
