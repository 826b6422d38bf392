"""docs/tutorial.ipynb: its cells run, its commands exist, and it stores nothing of a machine."""

import json
import os
import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from fluoroscope.command import entry
from tests.support.notebook import as_python, code_cells, commands, run_notebook
from tests.test_readme import ENTRIES

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/tutorial.ipynb"
CELLS = code_cells(NOTEBOOK)


def test_the_notebook_stores_no_output():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    stored = [(cell["outputs"], cell["execution_count"]) for cell in cells if "outputs" in cell]
    assert stored == [([], None)] * len(CELLS)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert len(CELLS) >= 8


@pytest.mark.parametrize("cell", range(len(CELLS)))
def test_a_cell_is_python(cell):
    as_python(CELLS[cell])


def words_of_commands():
    place: dict = {}
    (setup,) = re.findall(r"^setup = \(.*?^\)", "\n".join(CELLS), re.M | re.S)
    exec(setup, place)
    names = {
        "python": "python",
        "run": "outputs/run",
        "heads": "outputs/heads",
        "predicted": "p.csv",
    }
    return commands(NOTEBOOK, {**names, "setup": place["setup"]})


def test_the_notebook_trains_compares_and_predicts():
    scripts = [words[1] for words in words_of_commands()]
    assert scripts == [f"scripts/{name}.py" for name in ("train", "ablate", "predict")]


@pytest.mark.parametrize("words", words_of_commands()[:2], ids=["train", "ablate"])
def test_a_command_is_taken_up_to_where_it_would_start(monkeypatch, tmp_path, words):
    started = []
    monkeypatch.setattr(entry, "_run", lambda name, *rest: started.append(name) or 0)
    monkeypatch.setattr("sys.argv", words[1:])
    monkeypatch.chdir(tmp_path)
    name = Path(words[1]).stem
    entry.command("", name, *ENTRIES[name])
    assert started == [name]


@pytest.mark.whole
def test_the_notebook_runs_twice_in_a_clone(monkeypatch, tmp_path):
    matplotlib.use("Agg")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    monkeypatch.setattr("fluoroscope.__file__", str(tmp_path / "src/fluoroscope/__init__.py"))
    monkeypatch.chdir(tmp_path)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "2"}
    place = run_notebook(NOTEBOOK, tmp_path, **env)
    assert place["result"]["test"]["auroc"] > 0.75
    assert place["census"].sum(axis=1).to_numpy() == pytest.approx(1)
    assert {"relu", "gelu", "identity"} == set(place["table"].index)
    assert place["gates"].shape == (10, 896)
    scores = [each.probability["Consolidation"] for each in place["predictions"]]
    written = pd.read_csv(tmp_path / "outputs/tutorial/predictions.csv")
    assert len(written) == 120
    assert scores == pytest.approx(written["Consolidation_probability"][:4].tolist(), abs=1e-5)
    again = run_notebook(NOTEBOOK, tmp_path, **env)
    assert again["result"] == place["result"]
