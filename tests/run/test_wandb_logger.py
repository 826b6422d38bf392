import getpass
import itertools
import json
import math
import re
import signal
import socket
import sys
import time
from types import SimpleNamespace

import pytest
import wandb
from hydra.types import RunMode

from fluoroscope import train as training
from fluoroscope.config.schema import plain
from fluoroscope.errors import InputError
from fluoroscope.model.classifier import Classifier
from fluoroscope.run import wandb_logger, wandb_mode
from fluoroscope.run.csv_logger import MetricsCsv
from tests.support import commands
from tests.support.films import tiny_config, write_films
from tests.support.metrics import metric_rows
from tests.support.wandb_log import OfflineRun, wandb_config
from tests.support.wandb_server import WandbServer

KEY = "0" * 40


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch):
    """No settings that a person gave W&B."""
    monkeypatch.chdir(tmp_path)  # some of them lie in the working directory
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-settings"))


@pytest.fixture
def server():
    with WandbServer() as server:
        yield server


@pytest.fixture
def silent():
    """A server that takes a call and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# choose_mode ------------------------------------------------------------------------------------


def test_without_a_key_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(wandb_mode, "answers", lambda *_: pytest.fail("asked"))
    mode, line = wandb_mode.choose_mode("auto")
    assert mode == "offline"
    assert "no key is set" in line


def test_a_key_and_a_server_that_answers_are_online(server, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_mode.choose_mode("auto") == ("online", "W&B online")
    # Asked without the key, and nothing but the question.
    assert [received.splitlines()[0] for received in server.received] == ["GET /"]
    assert "Authorization" not in server.received[0]


def test_the_key_of_wandb_login_is_found(server, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {server.url.removeprefix('http://')}\n login user\n password {KEY}")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    assert wandb_mode.choose_mode("auto")[0] == "online"
    netrc.write_text(f"machine elsewhere.example\n login user\n password {KEY}")
    assert wandb_mode.choose_mode("auto")[0] == "offline"


def test_a_server_that_refuses_is_offline_at_once(monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb_mode.choose_mode("off")
    started = time.perf_counter()
    mode, line = wandb_mode.choose_mode("auto")
    assert mode == "offline"
    assert "no answer" in line
    assert time.perf_counter() - started < wandb_mode.ANSWER_TIMEOUT_S


def test_a_server_that_never_answers_is_offline_after_the_timeout(silent, monkeypatch):
    assert wandb_mode.ANSWER_TIMEOUT_S == 3
    monkeypatch.setattr(wandb_mode, "ANSWER_TIMEOUT_S", 0.4)
    monkeypatch.setenv("WANDB_BASE_URL", silent)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    started = time.perf_counter()
    assert wandb_mode.choose_mode("auto")[0] == "offline"
    assert 0.4 <= time.perf_counter() - started < 2


@pytest.mark.parametrize(("asked", "mode"), wandb_mode.MODES.items())
def test_wandb_mode_is_followed(asked, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", asked)
    assert wandb_mode.choose_mode("auto") == (mode, f"W&B {mode}: WANDB_MODE")


def test_every_mode_of_the_client_is_known():
    annotation = wandb.Settings.model_fields["mode"].annotation
    assert set(wandb_mode.MODES) == set(annotation.__args__)


def test_a_mistyped_wandb_mode_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(InputError, match=r"WANDB_MODE must be one of .*offline"):
        wandb_mode.choose_mode("auto")


def test_wandb_offline_on_the_command_line_is_followed(server, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    settings = wandb.setup().settings.read_system_settings()
    settings.set("mode", "offline")
    settings.save()
    wandb.teardown()
    mode, line = wandb_mode.choose_mode("auto")
    assert mode == "offline"
    assert "`wandb offline` was run before" in line
    assert server.received == []


@pytest.mark.parametrize("mode", ["online", "offline", "off"])
def test_the_configured_mode_wins_over_the_environment(mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    assert wandb_mode.choose_mode(mode) == (mode, f"W&B {mode}: logger.mode={mode}")


def test_an_online_run_without_a_key_is_refused():
    with pytest.raises(InputError, match=r"online needs a key .* logger\.mode=offline"):
        wandb_mode.choose_mode("online")


# A W&B run --------------------------------------------------------------------------------------

HOST, USER = "machine-of-a-person", "name-of-a-person"


def scalars(rows):
    """Rows as {key: value}, without histograms and what W&B adds."""
    kept = [
        {k: float(v) for k, v in row.items() if not k.startswith("_")}
        for row in rows
        if not any(isinstance(v, dict) for v in row.values())
    ]
    return [row | {"step": row.pop("trainer/global_step")} for row in kept]


def same_rows(left, right):
    assert len(left) == len(right) > 5
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == b[key] or (math.isnan(a[key]) and math.isnan(b[key])), key


def written(folder):
    """Rows of `metrics.csv` without the cells that are empty."""
    return [{k: float(v) for k, v in row.items() if v} for row in metric_rows(folder)]


def names_of(films):
    """Everything that says where the films lie, what they are called and whose they are."""
    paths = [*films.rglob("*.png")]
    assert len(paths) == 120
    patients = {path.stem.split("_")[0] for path in paths}
    return {films.name, *(path.name for path in paths), *(path.stem for path in paths), *patients}


def found(names, text):
    return {name for name in names if re.search(rf"\b{re.escape(name)}\b", text)}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "st-elsewhere"
    root.mkdir()
    return write_films(root)


@pytest.fixture(scope="module")
def finished(hospital, tmp_path_factory):
    """A finished offline run: the configuration, its folder and what W&B would be sent."""
    folder = tmp_path_factory.mktemp("offline") / "run"
    keys = ["logger=wandb", "logger.mode=offline", "logger.tags=[one,two]", "run.name=a-name"]
    keys += ["run.experiment=trial", "backbone.frozen=true"]  # frozen: a norm that is NaN
    cfg = tiny_config(hospital, *keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.setattr(sys, "argv", ["scripts/train.py", f"data.root={hospital}"])
        patch.setenv("WANDB_CONFIG_DIR", str(folder.parent / "wandb-settings"))
        patch.setenv("XDG_CACHE_HOME", str(folder.parent))
        for name in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(name, USER)
        assert getpass.getuser() == USER
        training.train(cfg, folder, [f"data.root={hospital}"])
        wandb_logger.finish(0)
    return cfg, folder, OfflineRun(folder)


def test_w_and_b_gets_what_is_in_metrics_csv(finished):
    _, folder, run = finished
    same_rows(scalars(run.history), written(folder))
    assert any(math.isnan(row.get("grad/l2/backbone", 0)) for row in scalars(run.history))


def test_every_window_has_its_histograms(finished):
    _, folder, run = finished
    panels = [row for row in run.history if any(key.startswith("hist/") for key in row)]
    assert len(panels) == 4  # two epochs, train and val
    for window, width in (("train", 80), ("val", 18)):
        rows = [row for row in panels if f"hist/{window}/gate_open_share" in row]
        steps = [row["step"] for row in written(folder) if f"units/{window}/dead_frac" in row]
        assert [row["trainer/global_step"] for row in rows] == steps
        for row in rows:
            share = row[f"hist/{window}/gate_open_share"]
            z = row[f"hist/{window}/pre_activation"]
            for histogram in (share, z):
                assert histogram["_type"] == "histogram"
                assert len(histogram["values"]) <= 64
                assert len(histogram["bins"]) == len(histogram["values"]) + 1
            assert sum(share["values"]) == 31
            # Of the last batch: eight in training, and 18 images in three batches of six.
            assert sum(z["values"]) == 31 * {80: 8, 18: 6}[width]


def test_the_histogram_of_gates_agrees_with_the_census(finished):
    _, folder, run = finished
    for row in run.history:
        if share := row.get("hist/val/gate_open_share"):
            step = row["trainer/global_step"]
            (dead,) = [
                cells["units/val/dead_frac"]
                for cells in written(folder)
                if "units/val/dead_frac" in cells and cells["step"] == step
            ]
            assert share["bins"][0] == 0
            assert share["values"][0] / 31 >= dead > 0


def test_the_run_is_called_as_configured(finished):
    _, folder, run = finished
    assert run.identity.display_name == "a-name"
    assert run.identity.project == "fluoroscope"
    assert run.identity.run_group == "trial-folder"
    assert list(run.identity.tags) == ["one", "two"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert run.identity.run_id == provenance["run_id"]
    assert run.exit_code == 0


def test_the_configuration_goes_along_without_its_paths(finished):
    cfg, _, run = finished
    config = {key: value for key, value in run.config.items() if key != "_wandb"}
    assert config == wandb_logger.shared_config(plain(cfg), [])
    assert config["head"]["activation"] == "relu"
    assert "root" not in config["data"]
    assert not {"root", "patient_pattern"} & config["data"].keys()
    assert "dir" not in config["run"]


def test_a_table_of_runs_shows_the_best_score_and_the_worst_share(finished):
    _, _, run = finished
    assert {name: parts for name, parts in run.definitions.items() if parts} == {
        "val/auroc": {"max"},
        **{
            f"units/{window}/{share}": {"last", "max"}
            for window, share in itertools.product(("train", "val"), ("dead_frac", "blackout_frac"))
        },
    }
    assert not run.definitions["trainer/global_step"]


def test_nothing_in_an_offline_run_names_a_path_a_patient_a_machine_or_a_person(finished, hospital):
    _, folder, run = finished
    secret = {
        *names_of(hospital),
        HOST,
        USER,
        str(hospital.parent),
        str(folder),
        "scripts/train.py",
    }
    assert found(secret, run.text) == set()
    # Long enough not to turn up in compressed or binary data by chance.
    raw = run.file.read_bytes()
    assert {name for name in secret if len(name) > 6 and name.encode() in raw} == set()
    files = [path for path in (run.folder / "files").rglob("*") if path.is_file()]
    kinds = sorted(re.sub("_[0-9]+_[0-9a-f]+", "", path.name) for path in files)
    assert kinds == ["gate_open.png", "postmortem.table.json", "requirements.txt"]
    for path in files:
        assert found(secret, path.read_bytes().decode("latin-1")) == set()
    packages = (run.folder / "files/requirements.txt").read_text()
    assert "@" not in packages  # by name, none by the place it came from
    assert not {"environment", "stats", "output", "output_raw"} & run.kinds()
    assert run.identity.host == "not-shared"


def make(folder, share, monkeypatch, root="/hospital/films"):
    """A run of nothing, in a process whose command line and host could be told."""
    config = wandb_config(
        share=share,
        data={"root": root, "csv": f"{root}/own.csv", "batch_size": 8},
        backbone={"name": "x", "file": f"{root}/w.pth"},
        run={"dir": f"{root}/out", "resume": None, "name": "n"},
    )
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(sys, "argv", [f"{root}/train.py", f"data.root={root}"])
    folder.mkdir()
    wandb_logger.make_wandb_logger(folder, config, "offline", "abcd1234")
    wandb_logger.finish(0)
    return OfflineRun(folder)


def test_paths_are_shared_where_they_are_asked_for(tmp_path, monkeypatch):
    run = make(tmp_path / "run", ["paths"], monkeypatch)
    assert run.config["data"]["root"] == "/hospital/films"
    assert run.config["backbone"]["file"] == "/hospital/films/w.pth"
    assert run.config["run"]["dir"] == "/hospital/films/out"
    assert HOST not in run.text
    assert "environment" not in run.kinds()


def test_sharing_the_host_shares_no_path(tmp_path, monkeypatch):
    run = make(tmp_path / "run", ["host"], monkeypatch)
    assert run.identity.host == HOST
    assert "hospital" not in run.text
    assert run.config["data"] == {"batch_size": 8}


def test_the_command_line_goes_along_where_both_are_shared(tmp_path, monkeypatch):
    run = make(tmp_path / "run", ["paths", "host"], monkeypatch)
    (environment, *_) = [r.environment for r in run.records if r.HasField("environment")]
    assert list(environment.args) == ["data.root=/hospital/films"]
    assert environment.host == HOST


def test_a_refusal_of_the_server_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"W&B: No API key .*; logger\.mode=offline"):
        wandb_logger.make_wandb_logger(tmp_path, wandb_config("online"), "online", "abcd1234")


def test_without_w_and_b_its_client_is_not_even_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_logger, "client", lambda: pytest.fail("asked"))
    made = training.build.build_loggers(tiny_config(tmp_path), tmp_path, "off", "abcd1234")
    assert [type(logger) for logger in made] == [MetricsCsv]
    wandb_logger.finish(0)


# Runs that end before their time ----------------------------------------------------------------


def test_a_run_that_fails_is_recorded_as_failed(hospital, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    hydra = SimpleNamespace(
        mode=RunMode.RUN,
        runtime=SimpleNamespace(output_dir=str(folder)),
        overrides=SimpleNamespace(task=[]),
    )
    monkeypatch.setattr(training, "HydraConfig", SimpleNamespace(get=lambda: hydra))
    step = Classifier.training_step

    def fail(self, batch, batch_idx):
        if self.trainer.global_step == 13:
            raise RuntimeError("film p013_1.png")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", fail)
    with pytest.raises(RuntimeError, match="p013_1"):
        training.main(tiny_config(hospital, "logger=wandb", "logger.mode=offline"))
    assert wandb.run is None
    run = OfflineRun(folder)
    assert run.exit_code == 1
    assert "p013" not in run.text
    rows = scalars(run.history)
    same_rows(rows, written(folder))
    assert max(row["step"] for row in rows) == 12


def test_a_kill_from_a_scheduler_leaves_whole_files(films, tmp_path):
    keys = ["logger=wandb", "logger.mode=offline", "trainer.max_epochs=10000", "run.dir=run"]
    process = commands.start(commands.tiny_arguments(films, *keys, "head.norm=layer"), tmp_path)
    folder = tmp_path / "run"
    commands.wait_for(folder / "checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    code, out, err = commands.end(process, 60)
    assert code == 128 + signal.SIGTERM
    assert err == ""
    assert len(re.findall("W&B", out)) == 1
    run = OfflineRun(folder)
    assert run.exit_code not in (None, 0)
    rows = scalars(run.history)
    rows_written = written(folder)
    assert len(rows_written) - len(rows) in (0, 1)  # the file is written first
    same_rows(rows, rows_written[: len(rows)])
    for name in ("best", "last"):
        checkpoint = training.load_checkpoint(folder / f"checkpoints/{name}.ckpt")
        assert checkpoint["global_step"] > 0
    assert not (folder / "result.json").exists()


# Online -----------------------------------------------------------------------------------------


def test_a_run_reaches_the_server_and_says_one_line_about_it(hospital, server, tmp_path):
    arguments = commands.tiny_arguments(hospital, "logger=wandb", "run.dir=run", "head.norm=layer")
    account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "USER": USER, "LOGNAME": USER}
    out, err = commands.run(arguments, tmp_path, **account)
    folder = tmp_path / "run"
    same_rows(scalars(server.history), written(folder))
    assert sum("hist/val/pre_activation" in row for row in server.history) == 2
    assert server.exit_code == 0
    first = server.runs[0]
    assert (first["project"], first["groupName"]) == ("fluoroscope", "default-folder")
    assert first["displayName"] == "relu-s1"

    secret = {*names_of(hospital), USER, str(folder), str(commands.TRAIN), "train.py"}
    assert found(secret, "\n".join(server.received)) == set()
    assert {run["host"] for run in server.runs} <= {None, "not-shared"}
    assert {run["program"] for run in server.runs} <= {None, "not-shared"}
    assert not [sent for sent in server.received if "/otel/" in sent.splitlines()[0]]

    assert err == ""
    lines = out.splitlines()
    assert [line for line in lines if "W&B" in line] == ["W&B online"]
    assert not [line for line in lines if re.search(r"wandb(?!/| leet)|lightning|torch", line)]


# A server in trouble ----------------------------------------------------------------------------


@pytest.fixture
def account(server, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def begin(folder, asked, mode="online"):
    """A run of nothing in a mode that was asked for as `asked`."""
    folder.mkdir(exist_ok=True)
    return wandb_logger.make_wandb_logger(folder, wandb_config(asked), mode, "abcd1234")


def settle(folder, logger):
    """The run that went offline, with a row in it."""
    logger.log_metrics({"a": 2.5}, 3)
    wandb_logger.finish(0)
    return scalars(OfflineRun(folder).history)


@pytest.mark.parametrize("trouble", [401, 403, "html"])
def test_auto_goes_offline_where_the_server_refuses_the_run(
    trouble, server, account, tmp_path, capfd
):
    server.trouble = trouble
    assert wandb_mode.choose_mode("auto")[0] == "online"  # it does answer
    earlier = tmp_path / "run/wandb/run-20200101_000000-abcd1234"
    earlier.mkdir(parents=True)
    started = time.perf_counter()
    logger = begin(tmp_path / "run", "auto")
    assert time.perf_counter() - started < wandb_logger.START_TIMEOUT_S
    assert settle(tmp_path / "run", logger) == [{"a": 2.5, "step": 3}]
    assert list((tmp_path / "run").glob("wandb/run-*")) == [earlier]  # none of the refused run
    out, err = capfd.readouterr()
    assert re.fullmatch(r"W&B offline: the server refused the run \(.+\)\n", out)
    assert str(trouble) in out or trouble == "html"
    assert err == ""


@pytest.mark.parametrize("after", [0, 1])  # the question for an earlier run, and the run itself
def test_auto_goes_offline_where_the_server_stalls(
    after, server, account, tmp_path, capfd, monkeypatch
):
    assert wandb_logger.START_TIMEOUT_S <= 10
    monkeypatch.setattr(wandb_logger, "START_TIMEOUT_S", 1.0)
    server.trouble, server.after = "stall", after
    started = time.perf_counter()
    logger = begin(tmp_path / "run", "auto")
    assert 1 <= time.perf_counter() - started < 6
    assert settle(tmp_path / "run", logger) == [{"a": 2.5, "step": 3}]
    assert len(re.findall("W&B offline: the server refused", capfd.readouterr().out)) == 1


def test_a_key_of_the_wrong_form_is_offline_too(server, account, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    logger = begin(tmp_path / "run", "auto")
    assert settle(tmp_path / "run", logger) == [{"a": 2.5, "step": 3}]
    assert "API key must have 40+ characters" in capfd.readouterr().out


def test_a_refusal_of_an_online_run_that_was_asked_for_stays_one(server, account, tmp_path):
    server.trouble = 401
    with pytest.raises(InputError, match=r"W&B: .*401.*; logger\.mode=offline needs no server"):
        begin(tmp_path / "run", "online")
    assert not list((tmp_path / "run").glob("wandb/offline-run-*"))


@pytest.mark.parametrize("trouble", ["closed", "stall", 500])
def test_a_server_that_dies_during_a_run_does_not_keep_it(
    trouble, server, account, tmp_path, capfd, monkeypatch
):
    assert wandb_logger.FINISH_TIMEOUT_S <= 25
    monkeypatch.setattr(wandb_logger, "FINISH_TIMEOUT_S", 1.0)
    logger = begin(tmp_path / "run", "auto")
    if trouble == "closed":
        server.close()
    server.trouble = trouble
    logger.log_metrics({"a": 2.5}, 3)
    started = time.perf_counter()
    wandb_logger.finish(0)
    wandb.teardown()  # what the end of the process does
    assert 1 <= time.perf_counter() - started < 4
    assert wandb.run is None
    (copy,) = (tmp_path / "run").glob("wandb/run-*")
    line = (
        f"not all of the run was uploaded within 1 s; `wandb sync --include-online {copy}` uploads"
    )
    out, err = capfd.readouterr()
    assert out == f"W&B: {line} the rest\n"
    assert err == ""


def test_an_upload_that_is_done_says_nothing(server, account, tmp_path, capfd):
    logger = begin(tmp_path / "run", "auto")
    logger.log_metrics({"a": 2.5}, 3)
    wandb_logger.finish(0)
    assert scalars(server.history) == [{"a": 2.5, "step": 3}]
    assert capfd.readouterr() == ("", "")
