import json
import math

import pandas as pd
import pytest
import yaml

from fluoroscope.errors import InputError
from fluoroscope.run import run_folder, wandb_logger
from fluoroscope.run.csv_logger import MetricsCsv
from fluoroscope.run.metrics_file import rewind_metrics
from fluoroscope.tracking import wandb_runs
from fluoroscope.tracking.wandb_runs import collect, table
from tests.support.metrics import metric_table

RESULT = {"labels": ["Mass"], "test": {"auroc": 0.75, "auroc/Mass": None}}
RESULT |= {"split_fingerprint": "f00d", "units": {"val/dead_frac": 0.25}}
HEAD = {"activation": "elu", "activation_args": {"alpha": 0.5}}


def not_null(value):
    """What JSON holds, with NaN for null."""
    return json.loads(json.dumps(value).replace("null", "NaN"))


def text(values):
    """Of nested values: NaN equals nothing, its text does. W&B writes 1.0 as 1."""
    return json.dumps(json.loads(json.dumps(values), parse_int=float), sort_keys=True)


def test_a_run_is_read_as_its_folder_holds_it(account):
    (run,) = collect("fluoroscope").runs
    result = run_folder.read_json(account.folder / "result.json")
    for section in ("val", "test", "units", "grad"):
        result[section] = not_null(result[section])
    result["run_id"] = run.result["run_id"]
    assert result["run_id"] in account.store.runs
    assert text(run.result) == text(result)
    assert math.isnan(run.result["grad"]["last"]["l2/backbone"])  # it is frozen

    config = yaml.safe_load((account.folder / "config.yaml").read_text())
    assert run.config == wandb_logger.shared_config(config, [])
    assert wandb_runs._config(run.config | {"resumed_at_step": 7}) == run.config
    assert (run.name, run.activation, run.seed, run.folder) == ("relu-s1", "relu", 1, None)
    assert run.predictions == {}


def test_its_metrics_are_those_of_its_file(account):
    (run,) = collect("fluoroscope", "local").runs
    written = metric_table(account.folder)
    assert len(written) > 20
    assert written.isna().to_numpy().any()
    pd.testing.assert_frame_equal(
        run.metrics[sorted(run.metrics)], written[sorted(written)], check_dtype=False, rtol=1e-12
    )


# Which runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("running", "is still running"),
        ("failed", "did not finish: it is failed"),
        ("killed", "did not finish: it is killed"),
    ],
)
def test_a_run_without_an_end_is_refused_or_left_out_by_name(state, told, server, add):
    add(server.store, "b", result=RESULT, seed=2, head=HEAD)
    add(server.store, "a", result=RESULT, seed=1, head=HEAD)
    add(server.store, "odd", state, result=RESULT, seed=1, head=HEAD)
    with pytest.raises(InputError, match=rf"run odd \(local/p/id-odd\) {told}; incomplete=true"):
        collect("p")
    found = collect("p", incomplete=True)
    assert [run.name for run in found.runs] == ["a", "b"]
    (line,) = found.left_out
    assert line.startswith("run odd (local/p/id-odd)")
    assert line.endswith(": left out")


@pytest.mark.parametrize("missing", ["labels", "test", "split_fingerprint", "all"])
def test_a_run_that_proves_nothing_of_its_data_is_refused(missing, server, add):
    result = {key: value for key, value in RESULT.items() if key != missing}
    add(server.store, "old", result=None if missing == "all" else result, seed=1, head=HEAD)
    with pytest.raises(InputError, match=r"run old .* has no result in its summary"):
        collect("p")
    with pytest.raises(InputError, match=r"no finished run to compare: run old .* has no result"):
        collect("p", incomplete=True)


def test_more_runs_than_a_page_holds_are_all_read(server, add):
    for i in range(53):
        add(
            server.store,
            f"r{i:02}",
            result=RESULT,
            rows=[{"trainer/global_step": i, "a": i}],
            seed=i,
            head=HEAD,
        )
    add(server.store, "elsewhere", project="q", result=RESULT, seed=1, head=HEAD)
    found = collect("p").runs
    assert [run.name for run in found] == [f"r{i:02}" for i in range(53)]
    assert [run.metrics["a"].item() for run in found] == list(range(53))
    assert {run.activation for run in found} == {"elu(alpha=0.5)"}


@pytest.mark.parametrize(("project", "entity"), [("a/b", None), ("p", "")])
def test_names_that_cannot_be_are_refused_before_anything_is_asked(project, entity, server):
    with pytest.raises(InputError, match="must be 1 to 128 characters"):
        collect(project, entity)
    assert server.received == []


def test_a_server_that_dies_between_two_pages_is_told(server, add):
    for i in range(53):
        add(server.store, f"r{i:02}", result=RESULT, seed=i, head=HEAD)
    server.trouble, server.after = 401, 4  # the key, the account, the project, one page
    with pytest.raises(InputError, match="refused"):
        collect("p")


def test_a_server_that_stalls_in_a_history_is_not_waited_for(server, add, monkeypatch):
    monkeypatch.setattr("fluoroscope.tracking.wandb_project.TIMEOUT_S", 1)
    add(
        server.store,
        "r",
        result=RESULT,
        rows=[{"trainer/global_step": 1, "a": 1}],
        seed=1,
        head=HEAD,
    )
    server.trouble, server.after = "stall", 5
    with pytest.raises(InputError, match="refused, or did not answer"):
        collect("p")


# table ------------------------------------------------------------------------------------------


def test_only_numbers_of_a_step_are_metrics():
    rows = [
        {"trainer/global_step": 3, "a": "NaN", "b": "-Infinity", "_runtime": 0.5, "_step": 0},
        {"trainer/global_step": 3, "hist/val/z": {"_type": "histogram", "bins": [1]}},
        {"a": 7.0, "_step": 2},
        {"trainer/global_step": 8, "a": 0.5, "epoch": 1},
    ]
    found = table(rows)
    assert list(found.columns) == ["step", "a", "b", "epoch"]
    assert str(found.to_numpy().tolist()) == ("[[3.0, nan, -inf, nan], [8.0, 0.5, nan, 1.0]]")


def test_of_a_resumed_run_the_same_rows_are_kept_as_in_its_file(tmp_path):
    first = [(0, 1.0), (4, 2.0), (9, 3.0), (9, 4.0), (14, 5.0), (19, 6.0)]
    second = [(10, 7.0), (14, 8.0), (19, 9.0), (19, 10.0)]
    log = MetricsCsv(tmp_path)
    for step, value in first:
        log.log_metrics({"a": value}, step)
    rewind_metrics(tmp_path / "metrics.csv", 10)
    for step, value in second:
        log.log_metrics({"a": value}, step)
    rows = [{"trainer/global_step": step, "a": value} for step, value in first + second]
    pd.testing.assert_frame_equal(table(rows), metric_table(tmp_path))
