"""Each part of a machine is told by one line: green, or red with what to do; none names anybody."""

import json
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from hydra import compose, initialize_config_dir

from fluoroscope.config import CONF
from fluoroscope.config.doctor import check_doctor
from fluoroscope.doctor import doctor, gpu, machine, packages, services
from fluoroscope.doctor.check import BAD, NOTE, OK, Check, Found, run_check
from fluoroscope.doctor.collection import collection
from fluoroscope.errors import InputError
from fluoroscope.launch import hub_check
from fluoroscope.launch.answers import answers
from tests.support.films import TINY, config

PLANTED = ("zwergl-user", "zwergl-host", "zwerglfolder", "zwerglpatient", "zwergl.example")
KEY = "0123456789" * 4


def job(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_doctor(compose("doctor", [*overrides]), [*overrides])


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    """No test asks a server of the world, and the command line is not that of the tests."""
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    monkeypatch.setattr(services, "check_hub", lambda name: None)
    monkeypatch.setattr(services, "answers", lambda url, wait_s: True)


def lines(capsys, *overrides):
    """The lines of the command by part, and its exit code."""
    code = 0
    try:
        doctor.main(job("json=true", *overrides))
    except SystemExit as end:
        code = end.code
    return {line.pop("part"): line for line in json.loads(capsys.readouterr().out)}, code


# ------------------------------------------------------------------------------------ the command
def test_a_machine_is_described_in_one_line_for_each_part(capsys, monkeypatch):
    monkeypatch.setattr(machine, "MEMINFO", machine.MEMINFO.parent / "none")
    doctor.main(job("backbone=lite0", "logger=csv"))
    *shown, end = capsys.readouterr().out.splitlines()
    parts = [check.part for check in doctor.checks(job("backbone=lite0"))]
    assert [line[9:23].strip() for line in shown] == parts
    assert all(line.split()[0] in (OK, NOTE) for line in shown)
    assert end == "a run with these keys can start here"


def test_a_problem_has_an_advice_and_ends_with_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "driver", lambda: None)
    monkeypatch.setattr(gpu, "driver_cuda", lambda: None)
    found, code = lines(capsys, "trainer=gpu", "backbone=lite0", "logger=csv")
    assert code == 1
    assert found["GPU"]["state"] == BAD
    assert "trainer.accelerator=auto" in found["GPU"]["advice"]
    assert [part for part, line in found.items() if line["state"] == BAD] == ["GPU"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("wait_s=0", "wait_s must be"),
        ("wiat_s=1", "wiat_s"),
        ("run.resume=auto", "give the keys of the run"),
        ("data=nih14", "data.root not set|data.root is not set"),
    ],
)
def test_bad_keys_are_refused(override, told):
    with pytest.raises(Exception, match=told):
        job(override)


def test_a_check_that_hangs_or_breaks_stops_no_other():
    started = time.monotonic()
    hung = run_check(Check("x", lambda: time.sleep(9), 0.2))
    assert time.monotonic() - started < 5
    assert (hung.state, hung.text) == (BAD, "no answer within 0.2 s")

    def broken():
        raise OSError("libcudnn.so.9: cannot open shared object file, /home/zwergl-user/x")

    found = run_check(Check("x", broken, 5))
    assert found.state == BAD
    assert "OSError" in found.text
    assert "libcudnn.so.9" in found.text
    assert "zwergl" not in found.text


def test_every_check_ends_where_every_name_and_server_hangs(monkeypatch, tmp_path):
    """Within the time that docs/experiments.md states; the hub's client alone would try again."""
    monkeypatch.setattr(services, "answers", answers)
    monkeypatch.setattr(services, "check_hub", hub_check.check_hub.__wrapped__)
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **keys: time.sleep(60))
    monkeypatch.setattr(hub_check, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(services.wandb_mode, "ANSWER_TIMEOUT_S", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    found = {}
    for mode in ("auto", "online"):
        for check in doctor.checks(job("wait_s=0.5", f"logger.mode={mode}")):
            if check.part in ("SLURM", "W&B", "Weights"):
                started = time.monotonic()
                found[f"{check.part} {mode}"] = run_check(check).state
                assert time.monotonic() - started < 10
    assert (found["W&B auto"], found["W&B online"]) == (NOTE, BAD)
    assert found["Weights auto"] == BAD


def test_the_longest_check_is_the_one_that_is_documented():
    page = (Path(__file__).parents[2] / "docs/experiments.md").read_text()
    limits = {check.part: check.limit_s for check in doctor.checks(job())}
    long = {part: limit for part, limit in limits.items() if limit > 25}
    assert long == {"PyTorch": 120, "Collection": 120}
    assert f"within {max(limits[part] for part in limits if part not in long):.0f} s" in page


# ------------------------------------------------------------------------------------- each part
def test_memory_is_that_of_the_container(tmp_path, monkeypatch):
    meminfo = "MemTotal: 33554432 kB\nMemFree: 1 kB\nMemAvailable: 25165824 kB\n"
    (tmp_path / "meminfo").write_text(meminfo)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.memory() == Found(OK, "24.0 GiB free of 32.0 GiB")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory().state == OK
    (tmp_path / "memory.max").write_text(f"{4 * machine.GIB}\n")
    (tmp_path / "memory.current").write_text(f"{3 * machine.GIB}\n")
    found = machine.memory()
    assert (found.state, found.text) == (BAD, "1.0 GiB free of 4.0 GiB")
    assert "data.num_workers" in found.advice


def test_a_container_may_use_fewer_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: 16)
    assert machine.processor() == Found(OK, "16 cores")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.processor().state == OK
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    found = machine.processor()
    assert (found.state, "may use 2.5" in found.text) == (NOTE, True)
    assert "data.num_workers=2," in found.advice


def test_shared_memory_is_compared_with_what_the_loader_needs(tmp_path, monkeypatch):
    """Docker's 64 MiB: three batches of 64 films of 380 px of each of 8 processes are 212 MiB."""
    monkeypatch.setattr(machine, "SHARED", tmp_path)
    cfg = job("data.num_workers=8").train
    need = 8 * 3 * 64 * 380**2
    for free, state in ((need - 1, BAD), (need, OK), (64 * 2**20, BAD)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda place, usage=usage: usage)
        assert machine.shared_memory(cfg).state == state
    assert "docker run --shm-size=2g" in machine.shared_memory(cfg).advice
    assert machine.shared_memory(job("data.num_workers=0").train).state == OK


def test_a_full_or_closed_disk_is_a_problem(tmp_path, monkeypatch):
    assert machine.disk(tmp_path / "a/b").state in (OK, NOTE)
    (tmp_path / "file").touch()
    assert machine.disk(tmp_path / "file/run").state == BAD
    usage = SimpleNamespace(free=machine.GIB // 2)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage)
    assert machine.disk(tmp_path).text == "0.5 GiB free where the run folder will be"
    assert machine.disk(tmp_path).state == BAD


def test_packages_are_compared_with_the_project_file(monkeypatch):
    assert packages.packages().state in (OK, NOTE)
    assert {"torch", "timm", "hydra-core"} <= {need.name for need in packages.needed()}
    real = packages._version
    own = {"timm": "0.9.1", "wandb": None}
    monkeypatch.setattr(packages, "_version", lambda name: own.get(name, real(name)))
    found = packages.packages()
    assert found.state == BAD
    assert "timm 0.9.1 is not >=1.0.31" in found.text
    assert "wandb is not installed" in found.text
    assert "pip install" in found.advice


def test_a_clone_that_was_updated_and_not_installed_again_says_so(monkeypatch):
    monkeypatch.setattr(packages, "IS_INSTALLED", False)
    monkeypatch.setattr(packages, "entry_points", lambda **_: [object()])
    assert packages.program().state == OK
    monkeypatch.setattr(packages, "entry_points", lambda **_: [])
    found = packages.program()
    assert (found.state, found.advice.partition(",")[0]) == (NOTE, "make install")
    assert "`fluoroscope`" in found.text


def fake_torch(available=True, cuda="13.0", product=gpu.SIDE**3):
    ones = SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: product))
    matrix = type("M", (), {"__matmul__": lambda self, other: ones})()
    functions = SimpleNamespace(
        is_available=lambda: available,
        device_count=lambda: 2,
        mem_get_info=lambda index: (70 * gpu.GIB, 80 * gpu.GIB),
        get_device_name=lambda index: "NVIDIA A100",
    )
    return SimpleNamespace(
        cuda=functions,
        version=SimpleNamespace(cuda=cuda),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)),
        ones=lambda *size, device: matrix,
    )


@pytest.mark.parametrize(
    ("torch", "driver", "supported", "keys", "state", "told"),
    [
        (fake_torch(), "580.65", (13, 0), [], OK, "2 x NVIDIA A100 with 70 of 80 GiB free"),
        (fake_torch(), "580.65", (13, 0), ["trainer.devices=4"], BAD, "set trainer.devices=2"),
        (fake_torch(product=1), "580.65", (13, 0), [], BAD, "does not compute: ArithmeticError"),
        (fake_torch(False), "535.1", (12, 2), [], BAD, "supports CUDA 12.2; PyTorch was built"),
        (fake_torch(False, None), "535.1", (12, 2), [], BAD, "was built for CPUs"),
        (fake_torch(False), "580.65", (13, 0), [], BAD, "docker run --gpus all"),
        (fake_torch(False), None, None, [], NOTE, "runs train on the CPU"),
        (fake_torch(False), None, None, ["trainer=gpu"], BAD, "none, but trainer.accelerator=gpu"),
    ],
)
def test_a_gpu_is_used_or_it_is_said_why_not(
    monkeypatch, torch, driver, supported, keys, state, told
):
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(gpu, "driver", lambda: driver)
    monkeypatch.setattr(gpu, "driver_cuda", lambda: supported)
    found = gpu.gpu(job(*keys).train.trainer)
    assert found.state == state
    assert told in f"{found.text}; {found.advice}"


def test_the_key_of_wandb_is_looked_for_and_never_shown(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "https://zwergl.example")
    assert services.wandb("auto", 1).text.startswith("offline: no key is set")
    with pytest.raises(InputError, match="needs a key"):
        services.wandb("online", 1)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = SimpleNamespace(base_url=url, api_key=KEY, identity_token_file=None)
        client = SimpleNamespace(setup=lambda: SimpleNamespace(settings=settings))
        monkeypatch.setattr(services.wandb_mode, "client", lambda: client)
        monkeypatch.setattr(services, "answers", answers)
        started = time.monotonic()
        found = services.wandb("online", 0.3)
        assert time.monotonic() - started < 5
    assert (found.state, found.text) == (BAD, "no answer within 0.3 s")
    assert KEY not in str(found)


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("echo 'Slurmctld(primary) at zwergl-host is UP'", OK),
        ("echo 'Slurmctld(primary) at zwergl-host is DOWN'; exit 1", NOTE),
        ("sleep 9", NOTE),
    ],
)
def test_slurm_is_asked(tmp_path, monkeypatch, script, state):
    for name in ("sbatch", "scontrol"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = services.slurm(0.5)
    assert found.state == state
    assert "zwergl" not in str(found)
    monkeypatch.setenv("PATH", "/nowhere")
    assert services.slurm(0.5) == Found(OK, "not on this machine")


def test_a_collection_is_looked_at(films, tmp_path):
    cfg = config(*TINY, f"data.root={films}", r"data.patient_pattern='(p\d+)_'")
    found = collection(cfg)
    assert found.state == OK
    assert found.text.startswith("data=folder: 120 images of 40 patients, 1 label; ")
    lost = collection(config(*TINY, f"data.root={tmp_path}/zwerglfolder"))
    assert lost.state == BAD
    assert lost.text.endswith("there is no directory <directory>")
    assert "zwergl" not in str(lost)
    assert "audit=only" in lost.advice


def test_no_line_names_a_person_a_machine_or_a_path(capsys, monkeypatch, tmp_path, films):
    """It is pasted into public issues."""
    root = tmp_path / "zwerglfolder"
    (root / "zwerglpatient").mkdir(parents=True)
    (root / "zwerglpatient/zwerglfolder.png").write_bytes(b"no image")
    for name in ("HOME", "USER", "LOGNAME", "HOSTNAME"):
        monkeypatch.setenv(name, str(tmp_path / "zwergl-user"))
    monkeypatch.setattr(socket, "gethostname", lambda: "zwergl-host")
    monkeypatch.setenv("HF_ENDPOINT", "https://zwergl.example")
    monkeypatch.setenv("WANDB_BASE_URL", "https://zwergl.example")
    monkeypatch.chdir(root)
    keys = ["data=folder", f"data.root={root}", f"run.dir={root}/outputs", "logger.mode=online"]
    for given in (keys, [*keys[:1], f"data.root={root}/none", *keys[2:]]):
        found, code = lines(capsys, *given)
        assert code == 1
        assert found["Collection"]["state"] == BAD
        told = json.dumps(found)
        assert not [name for name in (*PLANTED, str(tmp_path)) if name in told.lower()]
