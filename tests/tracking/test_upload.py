"""Offline runs through the real client to a stand-in for the server, which keeps what arrives."""

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import wandb
import yaml

from fluoroscope.command import entry
from fluoroscope.config.schema import plain
from fluoroscope.config.sync import Job
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder, wandb_logger, wandb_mode
from fluoroscope.run.csv_logger import MetricsCsv
from fluoroscope.run.metrics_file import rewind_metrics
from fluoroscope.tracking import upload, wandb_cli
from fluoroscope.tracking.offline_runs import MARKER, find_runs
from tests.support import films
from tests.support.wandb_log import end_wandb, wandb_config
from tests.support.wandb_server import WandbServer
from tests.support.wandb_store import rows_of

KEY = "0" * 40
LONG_AGO = 1.7e9


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch):
    """No settings that a person gave W&B."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-settings"))


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setattr(wandb_mode, "ANSWER_TIMEOUT_S", 30.0)  # the machine may be busy
        yield server


def write(folder: Path, steps, ended: str = "stopped", part: float = 0.0, own: int = 0) -> Path:
    """What a process leaves of a run whose loss is step + part; called again, it is resumed.

    Args:
        steps: those that are logged.
        ended: `finished`, `failed`, `stopped`, or `killed`, which leaves an empty log.
        own: how many values a user's own code logs to W&B alone.

    Returns:
        The log of W&B's client.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run_id, before = f"id-{folder.name}", set(folder.glob("wandb/offline-run-*"))
    config = plain(films.config("data=phantom"))
    named = {"name": f"name-{folder.name}", "dir": str(folder)}
    config |= wandb_config() | {"run": config["run"] | named}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    more = {"resumed_from": {}} if before else {}
    run_folder.write_json(folder / "provenance.json", {"run_id": run_id, **more})
    rewind_metrics(folder / "metrics.csv", steps[0])
    (folder / "failed.json").unlink(missing_ok=True)
    logger = wandb_logger.make_wandb_logger(folder, config, "offline", run_id)
    for step in steps:
        for each in (MetricsCsv(folder), logger):
            each.log_metrics({"loss": step + part, "units/val/dead_frac": 0.5}, step)
    for value in range(own):
        logger.experiment.log({"my/own": value})
    if ended == "finished":
        run_folder.write_json(folder / "result.json", {"test": {"auroc": 0.75}})
        wandb_logger.record({"test": {"auroc": 0.75}})
    if ended == "failed":
        run_folder.write_json(folder / "failed.json", {"error": "x", "exit_code": 1})
    wandb_logger.finish(0 if ended == "finished" else 1)
    end_wandb()
    (made,) = set(folder.glob("wandb/offline-run-*")) - before
    (log,) = made.rename(made.with_name(f"offline-run-2026010{len(before) + 1}-{run_id}")).glob(
        "*.wandb"
    )
    if ended == "killed":
        log.write_bytes(b"")
    return log


def sync(*places: Path, dry_run=False, project="p", entity=None) -> None:
    upload.main(Job(list(places), dry_run, project, entity))


def history(server, name):
    """(number, step, loss) of every row with a loss that the server has."""
    rows = rows_of(server.store.runs[f"id-{name}"])
    losses = [row for row in rows if "loss" in row]
    return [(row["_step"], row["trainer/global_step"], row["loss"]) for row in losses]


def expected(*losses):
    return [(i, int(loss), pytest.approx(loss)) for i, loss in enumerate(losses)]


# Whole logs -------------------------------------------------------------------------------------


def test_a_whole_run_goes_through_wandb_sync_with_all_it_logged(server, tmp_path, capsys):
    write(tmp_path / "whole", [1, 3, 5], "finished", own=2)
    sync(tmp_path)
    assert "whole: finished, 3 rows, W&B's own log ... uploaded\n" in capsys.readouterr().out
    assert history(server, "whole") == expected(1, 3, 5)
    run = server.store.runs["id-whole"]
    assert len(rows_of(run)) == 5
    assert (run["state"], run["displayName"]) == ("finished", "name-whole")
    # Nothing that names a folder or a machine went out.
    assert str(tmp_path) not in "".join(server.received)
    assert {run[key] for run in server.runs for key in ("host", "program")} <= {"not-shared", None}
    server.received.clear()
    sync(tmp_path)
    assert server.received == []
    assert "1 offline run: 0 to upload" in capsys.readouterr().out


def test_a_run_that_an_earlier_version_uploaded_is_passed_over(server, tmp_path):
    log = write(tmp_path / "before", [1], "finished")
    Path(f"{log}.synced").touch()
    sync(tmp_path)
    assert server.received == []


def test_a_run_that_failed_is_shown_as_failed(server, tmp_path):
    write(tmp_path / "broken", [1, 3], "failed")
    sync(tmp_path)
    assert server.store.runs["id-broken"]["state"] == "failed"
    assert history(server, "broken") == expected(1, 3)


def test_what_the_client_gave_up_on_is_no_upload(server, tmp_path, capsys):
    """It ends with exit code 0 then, and marks the run as uploaded."""
    write(tmp_path / "lost", [1, 3], "finished")
    server.trouble, server.after = 404, 4  # behind the run and the first part of its files
    with pytest.raises(SystemExit):
        sync(tmp_path)
    assert "FAILED: " in capsys.readouterr().out
    server.trouble = None
    sync(tmp_path)
    assert history(server, "lost") == expected(1, 3)


@pytest.mark.whole
def test_rows_that_arrived_before_the_client_gave_up_are_not_sent_again(
    server, tmp_path, monkeypatch
):
    log, send = write(tmp_path / "lost", [1, 3], "finished"), wandb_cli.sync
    monkeypatch.setattr(wandb_cli, "sync", lambda log: send(log) or "the connection was lost")
    with pytest.raises(SystemExit):
        sync(tmp_path)
    assert history(server, "lost") == expected(1, 3)
    sync(tmp_path)
    assert history(server, "lost") == expected(1, 3)
    assert Path(f"{log}.synced").exists()


def test_an_error_that_the_client_keeps_to_itself_is_no_upload(server, tmp_path):
    log = write(tmp_path / "config", [1], "finished")
    server.refused.add("CreateRunFiles")
    assert "runfiles: CreateRunFiles returned error" in wandb_cli.sync(log)
    assert not Path(f"{log}.synced").exists()


def test_a_table_whose_file_is_on_another_machine_is_counted(tmp_path, monkeypatch):
    """The client keeps it outside the run folder."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "home"))
    logger = wandb_logger.make_wandb_logger(tmp_path, wandb_config(), "offline", "a1b2c3d4")
    logger.log_table("deaths", ["unit"], [[7]])
    wandb_logger.finish(0)
    end_wandb()
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert wandb_cli.lost_tables(log) == ""
    (tmp_path / "home").rename(tmp_path / "there")
    assert wandb_cli.lost_tables(log) == "1 table with files on another machine"


def test_a_log_that_lacks_its_end_is_replayed(server, tmp_path, capsys):
    """The run was killed between its result and the end of W&B's log."""
    log = write(tmp_path / "cut", range(1, 40, 2), "finished")
    os.truncate(log, log.stat().st_size - 2000)
    sync(tmp_path)
    assert "uploaded" in capsys.readouterr().out
    assert history(server, "cut") == expected(*range(1, 40, 2))
    assert server.store.runs["id-cut"]["state"] == "finished"


# Replays ----------------------------------------------------------------------------------------


def test_a_killed_run_is_replayed_with_its_times(server, tmp_path, capsys):
    folder = tmp_path / "killed"
    write(folder, [1, 3, 5], "killed")
    with (folder / "metrics.csv").open("a") as file:
        file.write("7,170")  # a row that the kill cut off
    sync(tmp_path)
    out = capsys.readouterr().out
    assert "killed: stopped, 3 rows, replayed from the run folder ... uploaded" in out
    assert history(server, "killed") == expected(1, 3, 5)
    run = server.store.runs["id-killed"]
    assert (run["state"], run["displayName"]) == ("failed", "name-killed")
    times = [row["_timestamp"] for row in rows_of(run)]
    assert times == [float(row["time_s"]) for row in find_runs([tmp_path])[0].rows]
    assert str(tmp_path) not in "".join(server.received)
    server.received.clear()
    sync(tmp_path)
    assert server.received == []


def test_the_parts_of_a_resumed_run_become_one_run(server, tmp_path, capsys):
    folder = tmp_path / "resumed"
    write(folder, [1, 3, 5, 7], part=0.9, own=2)
    write(folder, [5, 7, 9], "finished", part=0.3)
    np.save(folder / "gate_open.npy", np.linspace(0, 1, 15, dtype=np.float32).reshape(5, 3))
    (folder / "postmortem.csv").write_text("epoch,unit,cause\n1,2,bias\n")
    sync(tmp_path)
    assert history(server, "resumed") == expected(1.9, 3.9, 5.3, 7.3, 9.3)
    run = server.store.runs["id-resumed"]
    assert run["state"] == "finished"
    *rows, last = rows_of(run)
    assert [sum(row["hist/val/gate_open_share"]["values"]) for row in rows] == [3] * 5
    assert last["postmortem"]["nrows"] == 1
    summary = json.loads(run["files"]["wandb-summary.json"][-1])
    assert summary["result"] == {"test": {"auroc": 0.75}}
    assert summary["units/val/dead_frac"] == {"last": 0.5, "max": 0.5}
    assert (
        "uploaded; not 2 values of my/own, which are only in W&B's log\n" in capsys.readouterr().out
    )


def test_a_run_that_was_resumed_after_its_upload_gets_the_rest(server, tmp_path):
    folder = tmp_path / "longer"
    write(folder, [1, 3, 5])
    sync(tmp_path)
    write(folder, [3, 5, 7, 9], "finished")
    sync(tmp_path)
    assert history(server, "longer") == expected(1, 3, 5, 7, 9)
    assert server.store.runs["id-longer"]["state"] == "finished"


@pytest.mark.whole
def test_rows_that_were_logged_again_with_other_numbers_stay_as_they_are(server, tmp_path):
    folder = tmp_path / "other"
    write(folder, [1, 3, 5], "finished")
    sync(tmp_path)
    (folder / "result.json").unlink()
    write(folder, [3, 5, 7, 9], "finished", part=0.5)
    sync(tmp_path)
    assert history(server, "other") == expected(1, 3, 5, 7.5, 9.5)


def test_an_upload_that_was_cut_short_goes_on_where_it_stopped(server, tmp_path, capsys):
    steps = list(range(1, 400, 2))
    write(tmp_path / "halfway", steps, "killed")
    server.trouble, server.after = 404, 4  # behind the run and some of its rows
    with pytest.raises(SystemExit):
        sync(tmp_path)
    assert "FAILED: " in capsys.readouterr().out
    assert len(rows_of(server.store.runs["id-halfway"])) < len(steps)
    server.trouble = None
    sync(tmp_path)
    assert history(server, "halfway") == expected(*steps)
    assert len(rows_of(server.store.runs["id-halfway"])) == len(steps)


def test_without_the_record_of_the_upload_the_servers_own_last_step_decides(server, tmp_path):
    folder = tmp_path / "moved"
    write(folder, [1, 3, 5], "killed")
    (folder / "postmortem.csv").write_text("epoch,unit,cause\n1,2,bias\n")
    sync(tmp_path)
    before = rows_of(server.store.runs["id-moved"])
    assert len(before) == 4
    (folder / MARKER).unlink()
    sync(tmp_path)
    assert rows_of(server.store.runs["id-moved"]) == before


def test_a_run_of_an_earlier_version_has_no_times(server, tmp_path):
    folder = tmp_path / "old"
    write(folder, [1, 3], "killed")
    (folder / "metrics.csv").write_text("step,loss\n1,1.0\n3,nan\n")
    sync(tmp_path)
    assert [row["loss"] for row in rows_of(server.store.runs["id-old"])] == [
        1.0,
        pytest.approx(float("nan"), nan_ok=True),
    ]


# Before the upload ------------------------------------------------------------------------------


def test_a_run_that_is_still_running_is_left_alone(tmp_path, capsys):
    write(tmp_path / "alive", [1, 3])
    (tmp_path / "alive/.lock").touch()
    sync(tmp_path)
    out = capsys.readouterr().out
    assert "skipped alive: it is still running" in out
    assert "1 offline run: 0 to upload, 1 uploaded before or skipped" in out


@pytest.mark.parametrize("named_by", ["config.yaml", "log"])
@pytest.mark.parametrize("keys", [{"project": "theirs"}, {"entity": "stranger"}])
def test_a_run_does_not_choose_where_it_is_uploaded(tmp_path, capsys, monkeypatch, keys, named_by):
    log = write(tmp_path / "found", [1], "finished")
    if named_by == "log":
        theirs = (keys.get("entity", ""), keys.get("project", "p"))
        monkeypatch.setattr(wandb_cli, "destinations", lambda path: iter([theirs]))
    else:
        assert list(wandb_cli.destinations(log)) == [("", "p")]
        config = yaml.safe_load((tmp_path / "found/config.yaml").read_text())
        config["logger"] |= keys
        (tmp_path / "found/config.yaml").write_text(yaml.safe_dump(config))
    sync(tmp_path)
    out = capsys.readouterr().out
    assert "skipped found: it is for another place on W&B; repeat this with project=" in out
    assert "1 offline run: 0 to upload, 1 uploaded before or skipped" in out
    if named_by == "config.yaml":
        monkeypatch.setattr(wandb_cli, "destinations", lambda path: iter(()))
        sync(tmp_path, dry_run=True, **keys)
        assert "1 to upload" in capsys.readouterr().out


def test_a_log_without_a_run_folder_is_named(tmp_path, capsys):
    log = write(tmp_path / "own", [1])
    (tmp_path / "own/provenance.json").unlink()
    sync(tmp_path)
    assert "skipped own: no run folder of fluoroscope" in capsys.readouterr().out
    assert log.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("provenance.json", b"{}"),
        ("provenance.json", b"[]"),
        ("provenance.json", b"\xff"),
        ("metrics.csv", b"step,loss\n0,1\n\xff,2\n"),
        ("metrics.csv", b"step,loss\n0,1,2\n"),
        ("metrics.csv", b""),
    ],
)
def test_a_damaged_run_is_named_and_does_not_keep_the_others(tmp_path, capsys, name, content):
    write(tmp_path / "damaged", [0, 1])
    write(tmp_path / "whole", [0, 1])
    (tmp_path / "damaged" / name).write_bytes(content)
    sync(tmp_path, dry_run=True)
    out = capsys.readouterr().out
    assert f"damaged: {name} is damaged; `wandb sync` uploads" in out
    assert "2 offline runs: 1 to upload" in out


def test_runs_are_uploaded_one_by_one_and_what_failed_is_named_at_the_end(
    monkeypatch, tmp_path, capsys
):
    for name in "abc":
        write(tmp_path / name, [1], "finished")
    answers = iter([None, "the disk is full. Sorry", None])
    monkeypatch.setattr(wandb_cli, "sync", lambda log: next(answers))
    monkeypatch.setattr(upload, "check_online", lambda purpose: None)
    with pytest.raises(SystemExit) as end:
        sync(tmp_path)
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "[2/3] b: finished, 1 row, W&B's own log ... FAILED: the disk is full\n" in out
    assert out.endswith("1 of 3 not uploaded; repeat this to try again:\n  b\n")


def test_a_dry_run_asks_nobody(server, tmp_path, monkeypatch, capsys):
    write(tmp_path / "outputs/run", [1, 3])
    monkeypatch.setattr(sys, "argv", ["sync.py", "runs=outputs", "project=p", "dry_run=true"])
    entries = ("fluoroscope.tracking.upload:main", "fluoroscope.config.sync:check_sync")
    entry.command("", "sync", *entries)
    assert "outputs/run: stopped, 2 rows, replayed" in capsys.readouterr().out
    assert server.received == []
    assert not list(tmp_path.glob("outputs/*-sync"))


def test_a_missing_key_or_server_is_reported_at_once(tmp_path, monkeypatch):
    write(tmp_path / "stays", [1])
    monkeypatch.setenv("WANDB_MODE", "offline")  # as machines without network have it
    with pytest.raises(InputError, match="cannot upload: no key is set"):
        sync(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(InputError, match="cannot upload: no answer within 3 s"):
        sync(tmp_path)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("runs=nowhere", "no folder nowhere"),
        ("runs=3", "must be a folder"),
        ("rns=x", "no key rns"),
    ],
)
def test_bad_input_is_refused(argument, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sync.py", argument])
    entries = ("fluoroscope.tracking.upload:main", "fluoroscope.config.sync:check_sync")
    with pytest.raises(SystemExit) as end:
        entry.command("", "sync", *entries)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
