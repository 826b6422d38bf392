import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import Run, collect
from tests.reporting.folders import LABELS, config, metrics, predictions, write_run

WHOLE = config()
UNKNOWN = json.dumps(WHOLE | {"head": {**WHOLE["head"], "newer": 3}})
NO_SEED = json.dumps(WHOLE | {"seed": "one"})


def test_runs_are_found_below_folders_and_read(tmp_path):
    write_run(tmp_path / "study/heads/b", "gelu", seed=4)
    shuffled = predictions(3).sample(frac=1, random_state=0)
    write_run(tmp_path / "a", "leaky_relu", 3, shuffled, head__activation_args={"slope": 0.1})
    (tmp_path / "study/study.yaml").write_text("activations: [gelu]")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/config.yaml").write_text("half")
    (tmp_path / "a/wandb").mkdir()
    (tmp_path / "a/wandb/config.yaml").write_text("W&B keeps one too")
    found = collect([tmp_path, tmp_path / "a"])
    assert [run.folder.name for run in found.runs] == ["a", "b"]
    assert found.left_out == []
    run = found.runs[0]
    assert (run.activation, run.seed, run.name) == ("leaky_relu(slope=0.1)", 3, "leaky_relu-s3")
    assert run.place == str(tmp_path / "a")
    assert math.isnan(run.result["grad"]["last"]["l2/backbone"])
    assert run.config["head"]["bias_init"] is None
    assert list(run.metrics["step"]) == [0, 9, 10, 19, 20, 29]
    pd.testing.assert_frame_equal(run.predictions["test"].astype("f8"), predictions(3).astype("f8"))


def test_runs_of_before_some_keys_are_compared_with_others(tmp_path, capsys):
    """One line tells of all of them."""
    for name in "abc":
        write_run(tmp_path / name)
    config = tmp_path / "a/config.yaml"
    config.write_text(config.read_text() + "loss: {name: bce}\n")
    runs = collect([tmp_path]).runs
    assert {json.dumps(run.config, sort_keys=True) for run in runs} == {
        json.dumps(runs[0].config, sort_keys=True)
    }
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["1 run", "2 runs"]
    assert "data.label_map={} " in lines[1]
    assert int(re.search(r" and (\d+) more$", lines[1])[1]) > 40


def test_predictions_keep_their_ties_and_lose_the_names_of_patients(tmp_path):
    table = predictions().assign(path="films/Doe_John.png", patient="Doe_John")
    column = f"{LABELS[0]}_probability"
    table[column] = np.round(table[column].astype("f8"), 1).astype("f4")
    read = collect([write_run(tmp_path / "a", table=table)]).runs[0].predictions["test"]
    assert list(read) == ["row", "group", *(n for k in LABELS for n in (k, f"{k}_probability"))]
    assert (read[column].to_numpy() == table[column].to_numpy()).all()


def test_a_run_in_memory_is_called_by_its_name():
    run = Run(None, "mine", config("prelu", 7), {}, metrics(), {"test": predictions()})
    assert (run.place, run.activation, run.seed) == ("mine", "prelu", 7)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"result.json": None}, r"bad is still running, or was killed \(it has no result.json\)"),
        (
            {"result.json": None, "failed.json": '{"error": "the loss is not finite"}'},
            r"bad failed \(the loss is not finite\)",
        ),
        ({"result.json": '{"failed": "it diverged"}'}, r"bad failed \(it diverged\)"),
        ({"result.json": '{"name": "b'}, "bad has a result.json that cannot be read"),
        ({"result.json": "[]"}, "bad has a result.json that cannot be read"),
        ({"result.json": '{"name": "bad"}'}, "bad has a result.json without labels, test scores"),
        (
            {"result.json": '{"labels": 5, "test": {}, "split_fingerprint": "a"}'},
            "bad has a result.json without labels",
        ),
        (
            {"result.json": '{"labels": ["a"], "test": {}, "split_fingerprint": "a", "val": [1]}'},
            "bad has a result.json whose val is no table of numbers",
        ),
        (
            {"metrics.csv": "step,epoch\n0,0\n\0\0\0,1\n"},
            "bad has a metrics.csv with cells that are",
        ),
        ({"metrics.csv": "step,epoch\n0,0\n1,2,3,4\n"}, "bad has no readable metrics.csv"),
        ({"config.yaml": None}, "bad has no readable config.yaml of a training run"),
        ({"config.yaml": "head: {width: ["}, "bad has no readable config.yaml of a training run"),
        ({"config.yaml": "seed: 3"}, "bad has no readable config.yaml of a training run"),
        ({"config.yaml": UNKNOWN}, r"bad has no readable .*this version has no key head.newer"),
        ({"config.yaml": NO_SEED}, "bad has a config.yaml with a seed or an activation that"),
        ({"metrics.csv": None}, "bad has no readable metrics.csv"),
        ({"metrics.csv": ""}, "bad has no readable metrics.csv"),
        ({"metrics.csv": "a,b\n1,2\n"}, "bad has a metrics.csv without the columns step and epoch"),
        ({"predictions/test.csv": None}, "bad has no readable predictions/test.csv"),
        ({"predictions/test.csv": "row,group\n"}, "bad has no readable predictions/test.csv"),
    ],
)
def test_what_is_not_a_finished_run_is_refused_or_left_out(tmp_path, files, told):
    write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad", "gelu")
    for name, text in files.items():
        (bad / name).unlink(missing_ok=True)
        if text is not None:
            (bad / name).write_text(text)
    with pytest.raises(InputError, match=f"{told}.*; incomplete=true leaves it out$"):
        collect([tmp_path])
    found = collect([tmp_path], incomplete=True)
    assert [run.folder.name for run in found.runs] == ["good"]
    assert len(found.left_out) == 1
    assert found.left_out[0].endswith(": left out")


def test_probabilities_that_are_missing_are_no_result(tmp_path):
    table = predictions()
    table.loc[3, f"{LABELS[1]}_probability"] = math.nan
    with pytest.raises(InputError, match="without images, or without probabilities"):
        collect([write_run(tmp_path / "a", table=table)])


def test_several_unfinished_runs_are_counted_in_one_line(tmp_path):
    write_run(tmp_path / "good")
    for name in ("x", "y", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("seed: 1")
    with pytest.raises(InputError, match=r"x is still running.*\(and 2 more like it\)$"):
        collect([tmp_path])


def test_an_evaluation_is_passed_over(tmp_path):
    write_run(tmp_path / "good")
    (tmp_path / "evaluated").mkdir()
    told = json.dumps({"checkpoint": "best.ckpt", "test": {}})
    (tmp_path / "evaluated/result.json").write_text(told)
    found = collect([tmp_path])
    assert len(found.runs) == 1
    assert "evaluated is an evaluation, not a run: left out" in found.left_out[0]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda place: None, "runs: there is no folder .*place"),
        (lambda place: place.write_text("a file"), "runs: there is no folder .*place"),
        (lambda place: place.mkdir(), "runs: .*place is empty; give the folder of"),
        (lambda place: (place / "notes").mkdir(parents=True), "runs: .*place holds no run; give"),
    ],
)
def test_a_place_without_runs_is_refused(tmp_path, make, told):
    make(tmp_path / "place")
    write_run(tmp_path / "good")
    with pytest.raises(InputError, match=told):
        collect([tmp_path / "good", tmp_path / "place"], incomplete=True)


def test_no_finished_run_at_all_is_refused(tmp_path: Path):
    write_run(tmp_path / "a").joinpath("result.json").unlink()
    with pytest.raises(InputError, match=r"no finished run to compare: .*a is still running"):
        collect([tmp_path], incomplete=True)
