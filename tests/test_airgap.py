"""Every command on a machine that reaches nothing but itself, and the upload afterwards."""

import csv
import json
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import timm
import torch

from fluoroscope.command import entry
from fluoroscope.config.sync import Job
from fluoroscope.prepare import weights
from fluoroscope.run import wandb_mode
from fluoroscope.tracking import upload
from tests.support.commands import LIMIT_S, tiny_arguments
from tests.support.wandb_server import WandbServer
from tests.support.wandb_store import rows_of

AIRGAP = Path(__file__).parent / "support/airgap"
NAME = "test_efficientnet.r160_in1k"


class Proxy:
    """Where programs would go that are not Python, such as W&B's; it counts who comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.came: list[bytes] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self.socket.accept()
            except OSError:
                return
            with caller:
                self.came.append(caller.recv(200))


def environment(place: Path, proxy: Proxy) -> dict[str, str]:
    """Of a process without network, and with nothing that asks the hub's client to be quiet."""
    own = ("HF_HUB_OFFLINE", "NO_ALBUMENTATIONS_UPDATE", "ORT_DISABLE_TELEMETRY")
    names = {k: v for k, v in os.environ.items() if k not in own and not k.startswith("WANDB")}
    through = {f"{kind}_PROXY": proxy.url for kind in ("HTTP", "HTTPS", "ALL")}
    through |= {name.lower(): url for name, url in through.items()}
    homes = {"HF_HOME": str(place / "hf"), "WANDB_CONFIG_DIR": str(place / "settings")}
    path = os.pathsep.join([str(AIRGAP), os.environ.get("PYTHONPATH", "")])
    guard = {"PYTHONPATH": path, "AIRGAP_LOG": str(place / "tried.log")}
    return names | through | homes | guard | {"OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}


def call(place: Path, proxy: Proxy, *command: str, limit_s: float = LIMIT_S, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        check=False,
        cwd=place,
        env=environment(place, proxy) | env,
        capture_output=True,
        text=True,
        timeout=limit_s,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(films, tmp_path_factory):
    """A working directory after all commands; `said` is what they printed, `came` who got out."""
    place = tmp_path_factory.mktemp("airgap")
    torch.manual_seed(5)
    (place / "weights").mkdir()
    # As `prepare.py` leaves them where there is a network.
    weights._write(
        place / f"weights/{NAME}.safetensors", NAME, timm.create_model(NAME, num_classes=0)
    )
    fast = ["backbone.frozen=true", "data.augment=[]", "seeds=1", "report=false"]
    tiny = [a for a in tiny_arguments(films) if not a.startswith(("backbone.", "logger="))]
    tiny += [f"backbone.name={NAME}", "backbone.weights=file"]
    tiny += [f"backbone.file=weights/{NAME}.safetensors"]
    explained = ["methods=[gradcam]", "films=3", "run.dir=outputs/explained"]
    commands = [
        ["prepare", f"weights={NAME}"],
        ["train", *tiny, "run.dir=outputs/run"],
        ["train", "run.resume=outputs/run", "trainer.max_epochs=3"],
        ["evaluate", "checkpoint=outputs/run/checkpoints/best.ckpt"],
        ["predict", "checkpoint=outputs/run", f"images={films}", "out=films.csv"],
        ["explain", "checkpoint=outputs/run", *explained],
        ["export", "checkpoint=outputs/run", f"images={films}"],
        ["ablate", *tiny, *fast, "activations=[relu]", "run.dir=outputs/study"],
        ["report", "runs=outputs/study", "out=report"],
        ["dashboard", "--dry-run"],
        ["sync", "--dry-run"],
        ["census", "model=outputs/run", f"images={films}", "run.dir=outputs/census"],
        ["census", f"model=timm/{NAME}", *tiny[-2:], f"images={films}", "data.image_px=48"],
        ["doctor", "backbone=lite0"],
    ]
    proxy = Proxy()
    entries = str(AIRGAP / "entries.py")
    said = call(place, proxy, entries, json.dumps(commands), limit_s=60 * len(commands))
    (place / "said.txt").write_text(said)
    (place / "came.txt").write_bytes(b"\n".join(proxy.came))
    proxy.socket.close()
    return place


def test_every_command_works_without_network(place):
    said = (place / "said.txt").read_text()
    ended = re.findall(r"== (\w+) ended with (.*)", said)
    # This machine may have a problem that has nothing to do with the network.
    assert {code for name, code in ended if name != "doctor"} == {"0"}, said[-3000:]
    names = [name for name, _ in ended]
    assert {*names} >= {"evaluate", "predict", "ablate", "report", "sync", "doctor"}
    assert names.count("train") == names.count("census") == 2
    assert (place / "outputs/census/census.html").exists()
    assert "W&B offline: no key is set" in said
    assert "SHA-256 matches the manifest" in said
    assert (place / "report/report.html").exists()
    assert (place / "films.csv").exists()
    assert "outputs/run: " in said.partition("== sync\n")[2]


def test_and_none_tried_to_get_out(place):
    assert not (place / "tried.log").exists(), (place / "tried.log").read_text()
    assert (place / "came.txt").read_bytes() == b""


def test_the_check_of_a_machine_says_what_is_offline(place):
    told = (place / "said.txt").read_text().partition("== doctor\n")[2]
    assert re.search(r"note +W&B +offline: no key is set", told), told
    assert re.search(r"ok +Weights +not needed with backbone.weights=package", told)
    assert "no answer within" not in told
    assert re.search(r"a run with these keys can start here|\d problems?: ", told)


@pytest.mark.whole
def test_the_check_of_a_machine_ends_where_no_server_answers(tmp_path):
    proxy = Proxy()
    key = {"WANDB_API_KEY": "0" * 40, "AIRGAP_HANGS": "1", "http_proxy": "", "https_proxy": ""}
    key |= {"HTTP_PROXY": "", "HTTPS_PROXY": "", "ALL_PROXY": "", "all_proxy": ""}
    entries, commands = str(AIRGAP / "entries.py"), [["doctor", "wait_s=0.5"]]
    said = call(tmp_path, proxy, entries, json.dumps(commands), **key)
    assert re.search(r"note +W&B +offline: no answer within", said), said
    assert re.search(r"problem +Weights .* neither on this machine nor to be had", said)
    assert "== doctor ended with 1" in said
    proxy.socket.close()


def test_who_tries_is_seen(tmp_path):
    proxy = Proxy()
    code = "import socket; socket.create_connection(('10.0.0.1', 80))"
    assert "Network is unreachable" in call(tmp_path, proxy, "-c", code)
    code = "import urllib.request; urllib.request.urlopen('http://a.example')"
    assert "closed connection" in call(tmp_path, proxy, "-c", code)
    proxy.socket.close()
    assert "10.0.0.1" in (tmp_path / "tried.log").read_text()
    assert proxy.came[0].startswith(b"GET http://a.example")


def documented():
    page = (AIRGAP.parents[2] / "docs/airgapped.md").read_text()
    blocks = "".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ")
    return [line for line in blocks.splitlines() if line.startswith("python scripts/")]


@pytest.mark.parametrize("line", documented())
def test_the_lines_of_the_page_are_taken(line, tmp_path, monkeypatch):
    """By the scripts themselves, up to where they would start."""
    for name in ("outputs", "DIR", "weights"):
        (tmp_path / name).mkdir()
    (tmp_path / "weights/tf_efficientnet_b4.aa_in1k.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(entry, "_run", lambda name, *rest: started.append(name) or 0)
    _, script, *arguments = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(AIRGAP.parents[2] / script), run_name="__main__")
    assert started == [Path(script).stem]


def test_back_where_there_is_a_network_the_resumed_run_is_uploaded(place, monkeypatch):
    """One run with the rows of `metrics.csv`, in which each step stands once."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(place / "settings"))
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_mode, "ANSWER_TIMEOUT_S", 30.0)  # the machine may be busy
        upload.main(Job([Path("outputs/run")], False, "fluoroscope", None))
    assert len(list(place.glob("outputs/run/wandb/offline-run-*"))) == 2
    (run,) = server.store.runs.values()
    assert run["state"] == "finished"
    with (place / "outputs/run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sent = rows_of(run)
    assert [row["_step"] for row in sent] == list(range(len(sent)))
    numbers = [row for row in sent if set(row) & (set(rows[0]) - {"step"})]  # others are pictures
    assert [row["trainer/global_step"] for row in numbers] == [int(row["step"]) for row in rows]
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert [row["train/loss"] for row in numbers if "train/loss" in row] == losses
