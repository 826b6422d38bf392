"""Offline runs through the real client to a stand-in for the server, which keeps what arrives."""

import os
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest
import wandb

from fluoroscope.command import entry
from fluoroscope.config.sync import Job
from fluoroscope.errors import InputError
from fluoroscope.run import wandb_logger, wandb_mode
from fluoroscope.tracking import client, offline_log, upload
from fluoroscope.tracking.offline import Segment, find_runs
from tests.support.wandb_log import HEADER, blobs, parse, wandb_config
from tests.support.wandb_server import ARTIFACT, WandbServer
from tests.support.wandb_store import rows_of

KEY = "0" * 40
LONG_AGO = 1.7e9


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch):
    """No settings that a person gave W&B."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-settings"))


@pytest.fixture(params=[WandbServer])
def server(request, monkeypatch):
    with request.param() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setattr(wandb_mode, "ANSWER_TIMEOUT_S", 30.0)  # the machine may be busy
        yield server


def write(
    folder: Path, run_id: str, started: int, steps, part: float = 0.0, table=None, resumed_at=None
) -> Segment:
    """An offline segment as a run leaves it, long ago: a row a step, whose loss is step + part.

    Args:
        started: sorts the segments.
        steps: those that are logged.
        resumed_at: the step at which the run says that it goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("wandb/offline-run-*"))
    more = {} if resumed_at is None else {offline_log.RESUMED_AT: resumed_at}
    config = wandb_config(**more) | {"run": {"name": f"name-{run_id}"}}
    logger = wandb_logger.make_wandb_logger(folder, config, "offline", run_id)
    for step in steps:
        logger.log_metrics({"loss": step + part, "val/auroc": part}, step)
    if table is not None:
        logger.experiment.log({"deaths": table})
    wandb_logger.finish(0)
    wandb.teardown()  # until then the client may still write
    (made,) = set(folder.glob("wandb/offline-run-*")) - before
    made = made.rename(made.with_name(f"offline-run-20260101_{started:06}-{run_id}"))
    return aged(Segment(made))


def aged(segment: Segment) -> Segment:
    os.utime(segment.path, (LONG_AGO, LONG_AGO))
    return Segment(segment.folder)


def cut(segment: Segment, rows: int, more: int = 9) -> Segment:
    """As a kill leaves it: whole up to so many rows, and the beginning of the next record."""
    data, seen, keep = segment.path.read_bytes(), 0, []
    records = list(blobs(data))
    for record in records:
        if parse(record).WhichOneof("record_type") == "history":
            seen += 1
        if seen > rows:
            break
        keep.append(record)
    offline_log.write_log(segment.path, data[:HEADER], keep)
    whole = segment.path.stat().st_size
    segment.path.write_bytes(data[: whole + more])
    return aged(segment)


def sync(*places: Path, dry_run=False) -> None:
    upload.main(Job(list(places), dry_run))


def history(server, run_id):
    """(number, step, loss) of every row with a loss that the server has.

    It keeps one row of each number, to which the client trusts where it sends rows again.
    """
    rows = {row["_step"]: row for row in rows_of(server.store.runs[run_id])}
    losses = {i: row for i, row in rows.items() if "loss" in row}
    return [(i, row["trainer/global_step"], row["loss"]) for i, row in losses.items()]


# Uploads ----------------------------------------------------------------------------------------


def test_the_segments_of_a_resumed_run_become_one_run(server, tmp_path, capsys):
    folder = tmp_path / "outputs/run"
    cut(write(folder, "resumed1", 1, [1, 3, 5, 7, 9, 11], part=0.9), rows=4)
    write(folder, "resumed1", 2, [1]).path.write_bytes(b"")
    cut(write(folder, "resumed1", 3, [5, 7, 9, 11, 13], part=0.3), rows=3)
    write(folder, "resumed1", 4, [9, 11, 13], part=0.4)
    for empty in folder.glob("wandb/*000002*/*.wandb"):
        os.utime(empty, (LONG_AGO, LONG_AGO))
    logs = {path: path.read_bytes() for path in folder.glob("wandb/offline-run-*/*.wandb")}
    sync(tmp_path / "outputs")
    steps = [(1, 0.9), (3, 0.9), (5, 0.3), (7, 0.3), (9, 0.4), (11, 0.4), (13, 0.4)]
    expected = [(i, s, pytest.approx(s + part)) for i, (s, part) in enumerate(steps)]
    assert history(server, "resumed1") == expected
    run = server.store.runs["resumed1"]
    assert len(rows_of(run)) == 7
    assert (run["state"], run["displayName"]) == ("finished", "name-resumed1")
    assert '"val/auroc":{"max":0.4}' in run["files"]["wandb-summary.json"][-1]  # 0.9 was rewound
    out = capsys.readouterr().out
    assert "7 rows of 3 segments without 3 that were rewound ... uploaded" in out
    assert out.count("skipped") == 1
    assert "offline-run-20260101_000002-resumed1: empty" in out
    # What the run left is as it was, and nothing else went out.
    assert {path: path.read_bytes() for path in logs} == logs
    assert not list(folder.glob("wandb/*/offline-*"))
    sent = "".join(server.received)
    assert str(tmp_path) not in sent
    told = {run[key] for run in server.runs for key in ("host", "program")}
    assert told == {"not-shared", None}
    # A second call has nothing to do.
    server.received.clear()
    sync(tmp_path / "outputs")
    assert server.received == []
    assert "1 offline runs: 0 to upload, 1 uploaded already" in capsys.readouterr().out


def test_runs_are_uploaded_in_the_order_in_which_they_were_made(monkeypatch, tmp_path, capsys):
    """One that fails is named at the end, its later segments wait, and the others go on."""
    for name, run_id, started in (("b", "late", 9), ("c", "first", 1), ("a", "middle", 5)):
        write(tmp_path / name, run_id, started, [1])
    write(tmp_path / "c", "first", 3, [2])
    called = []

    def call(path):
        called.append(path.parent.name[-12:].partition("-")[2] or path.stem)
        return "the disk is full. Sorry" if "first" in path.name else None

    monkeypatch.setattr(client, "_call", call)
    monkeypatch.setattr(upload, "_check_server", lambda: None)
    with pytest.raises(SystemExit) as end:
        sync(tmp_path)
    assert end.value.code == 1
    assert [name.removeprefix("run-") for name in called] == ["first", "middle", "late"]
    out = capsys.readouterr().out
    assert "[1/3] c: 2 rows of 2 segments ... FAILED: the disk is full\n" in out
    assert out.endswith("1 of 3 not uploaded; repeat this to try again:\n  c\n")
    assert [bool(list((tmp_path / n).glob("wandb/*/*.synced"))) for n in "abc"] == [1, 1, 0]


def test_what_the_client_gave_up_on_is_no_upload(server, tmp_path, capsys):
    """It ends with exit code 0 then, and marks the run as uploaded."""
    cut(write(tmp_path / "run", "lost", 1, [1, 3, 5]), rows=2)
    server.trouble, server.after = 404, 4  # behind the run and the first part of its files
    with pytest.raises(SystemExit):
        sync(tmp_path)
    assert "FAILED: Fatal error while uploading data" in capsys.readouterr().out
    server.trouble = None
    sync(tmp_path)
    assert history(server, "lost") == [(0, 1, 1.0), (1, 3, 3.0)]


def test_an_error_that_the_client_keeps_to_itself_is_no_upload(server, tmp_path):
    write(tmp_path / "run", "config", 1, [1])
    (segment,) = find_runs([tmp_path])[0].segments
    server.refused.add("CreateRunFiles")
    assert "runfiles: CreateRunFiles returned error" in str(
        client.upload(segment, float("inf")).problem
    )
    assert not segment.uploaded
    assert history(server, "config") == [(0, 1, 1.0)]


class Keeper(WandbServer):
    """Takes the files of artifacts, which are there already for the plain stand-in."""

    def answer(self, operation, variables):
        node = {"id": "f", "name": "n", "displayName": "n", "uploadHeaders": []}
        if operation == "CreateArtifact":
            return {"createArtifact": {"artifact": ARTIFACT | {"state": "PENDING"}}}
        if operation == "CreateArtifactManifest":
            file = node | {"uploadUrl": f"{self.url}/upload/manifest"}
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        if operation == "CreateArtifactFiles":
            names = [part["name"] for part in variables["input"]["artifactFiles"]]
            more = {"storagePath": "s", "uploadMultipartUrls": None, "artifact": {"id": "a1"}}
            named = [node | more | {"name": n, "displayName": n} for n in names]
            edges = [{"node": n | {"uploadUrl": f"{self.url}/upload/{n['name']}"}} for n in named]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "a1", "digest": "d1"}}}
        return super().answer(operation, variables)


@pytest.mark.parametrize("server", [Keeper], indirect=True)
@pytest.mark.parametrize("kept", [True, False], ids=["with its files", "without"])
def test_a_table_is_uploaded_from_another_machine(server, tmp_path, monkeypatch, capsys, kept):
    """The log names the table's file by a path that is no longer there."""
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.setenv("WANDB_DATA_DIR", str(here / ("run/wandb" if kept else "home")))
    write(here / "run", "table", 1, [1], table=wandb.Table(["unit"], data=[["u-7"]]))
    there.mkdir()
    (here / "run").rename(there / "run")
    shutil.rmtree(here)
    sync(there)
    sent = [r for r in server.received if r.startswith("PUT /upload/deaths.table.json")]
    assert ["u-7" in content for content in sent] == [True] * kept
    assert ("uploaded without 1 tables" in capsys.readouterr().out) != kept
    assert find_runs([there])[0].pending == []
    assert history(server, "table") == [(0, 1, 1.0)]


def test_a_run_that_went_on_after_its_upload_is_uploaded_again(server, tmp_path):
    segment = write(tmp_path / "run", "longer", 1, [1, 3, 5, 7])
    whole = segment.path.read_bytes()
    cut(segment, rows=2)
    sync(tmp_path)
    assert history(server, "longer") == [(0, 1, 1.0), (1, 3, 3.0)]
    assert server.store.runs["longer"]["state"] == "failed"
    segment.path.write_bytes(whole)
    os.utime(segment.path, (LONG_AGO + 1, LONG_AGO + 1))
    sync(tmp_path)
    assert history(server, "longer") == [(i, s, float(s)) for i, s in enumerate([1, 3, 5, 7])]
    assert server.store.runs["longer"]["state"] == "finished"


# Before the upload ------------------------------------------------------------------------------


def test_a_run_that_is_still_written_is_left_alone(tmp_path, capsys):
    segment = cut(write(tmp_path / "run", "alive", 1, [1, 3]), rows=1)
    now = time.time()
    os.utime(segment.path, (now, now))
    sync(tmp_path)
    out = capsys.readouterr().out
    assert "skipped run: still being written" in out
    assert "1 offline runs: 0 to upload, 0 uploaded already" in out


def test_what_a_run_logs_once_more_at_the_step_before_it_goes_on_is_no_rewound_row(
    server, tmp_path
):
    """As one does that was stopped in a validation: that is logged at the last step of training."""
    folder = tmp_path / "outputs/run"
    write(folder, "within", 1, [1, 3, 5, 7], part=0.1)
    write(folder, "within", 2, [5, 7, 9], part=0.3, resumed_at=6)
    sync(tmp_path / "outputs")
    logged = [(step, round(loss - step, 1)) for _, step, loss in history(server, "within")]
    assert logged == [(1, 0.1), (3, 0.1), (5, 0.1), (5, 0.3), (7, 0.3), (9, 0.3)]


def test_rows_that_are_online_already_stay_and_are_counted(tmp_path, capsys):
    first = write(tmp_path / "run", "twice", 1, [1, 3, 5])
    first.marker.touch()
    write(tmp_path / "run", "twice", 2, [3, 5, 7])
    sync(tmp_path, dry_run=True)
    assert "run: 3 rows (2 rewound ones were uploaded before and stay)" in capsys.readouterr().out


def test_a_run_resumed_from_its_start_keeps_everything_but_the_rows(tmp_path, monkeypatch):
    segment = write(tmp_path / "run", "anew", 1, [0, 1])
    sent = []
    monkeypatch.setattr(client, "_call", lambda path: sent.append(path.read_bytes()))
    client.upload(segment, before=0)
    kinds = [parse(record).WhichOneof("record_type") for record in blobs(sent[0])]
    assert "history" not in kinds
    assert kinds.count("run") == kinds.count("exit") == 1


def test_a_dry_run_asks_nobody(server, tmp_path, monkeypatch, capsys):
    write(tmp_path / "outputs/run", "dry", 1, [1, 3])
    monkeypatch.setattr(sys, "argv", ["sync.py", "runs=outputs", "dry_run=true"])
    entries = ("fluoroscope.tracking.upload:main", "fluoroscope.config.sync:check_sync")
    entry.command("", "sync", *entries)
    assert "outputs/run: 2 rows\n" in capsys.readouterr().out
    assert server.received == []
    assert not list(tmp_path.glob("outputs/*-sync"))


def test_no_key_and_no_server_are_told_at_once(tmp_path, monkeypatch):
    write(tmp_path / "run", "stays", 1, [1])
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


# The log ----------------------------------------------------------------------------------------

SIZES = [0, 1, 7, 32747, 32748, 32749, 32754, 32755, 40000, 5, 100_000, 32768, 3]


def records():
    return [bytes([i + 1]) * size for i, size in enumerate(SIZES)]


def test_a_written_log_is_read_back_by_another_reader(tmp_path):
    path, start = tmp_path / "run-x.wandb", b":W&B\xe1\xbe\x00"
    offline_log.write_log(path, start, records())
    assert list(blobs(path.read_bytes())) == records()
    assert offline_log.read_log(path) == (start, records(), False)


def test_the_client_writes_as_the_log_is_written_here(tmp_path):
    steps = range(300)  # several blocks
    segment = write(tmp_path / "run", "blocks", 1, steps)
    data = segment.path.read_bytes()
    assert len(data) > 2 * offline_log.BLOCK
    offline_log.write_log(tmp_path / "again", data[:HEADER], blobs(data))
    assert (tmp_path / "again").read_bytes() == data
    assert segment.steps == list(steps)


def test_a_log_that_ends_anywhere_gives_its_whole_records(tmp_path):
    path = tmp_path / "run-x.wandb"
    ends = [len(b":W&B\xe1\xbe\x00")]
    for count in range(1, len(SIZES) + 1):
        offline_log.write_log(path, b":W&B\xe1\xbe\x00", records()[:count])
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    for whole, end in enumerate(ends):
        path.write_bytes(data[:end])
        assert offline_log.read_log(path)[1:] == (records()[:whole], False)
        if whole + 1 < len(ends):
            path.write_bytes(data[: ends[whole + 1] - 1])
            assert offline_log.read_log(path)[1:] == (records()[:whole], True)
    path.write_bytes(data[: ends[4] + 20] + b"\xff" + data[ends[4] + 21 :])
    assert offline_log.read_log(path).records == records()[:4]


@pytest.mark.parametrize("content", [b"", b":W&B", b"something else"])
def test_what_is_no_log_holds_nothing(tmp_path, content):
    path = tmp_path / "run-x.wandb"
    path.write_bytes(content)
    assert offline_log.read_log(path).records == []
