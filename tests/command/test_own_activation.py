"""An activation of the user's own in every command."""

import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from omegaconf import OmegaConf

import fluoroscope
from fluoroscope.command import entry
from fluoroscope.errors import InputError
from fluoroscope.launch import stopping
from fluoroscope.run.resume import load_checkpoint, newest_checkpoint
from tests.run.test_added import run
from tests.support.commands import end, start
from tests.support.own_package import forgotten, write_package
from tests.support.slurm import free_ports

SNAKE = ("head.activation=mypkg.acts.Snake", "head.activation_args.a=1.5", "head.norm=layer")
NAMES_CODE = r"head.activation names code, '{}', .*; if you trust it, add trust=\[{}\]$"


@pytest.fixture(scope="module")
def place(films, tmp_path_factory):
    """A working folder with the package, and a run that was trained with its Snake."""
    from tests.support.films import TINY

    folder = tmp_path_factory.mktemp("own")
    write_package(folder)
    words = [*TINY, f"data.root={films}", r"data.patient_pattern='(p\d+)_'", *SNAKE]
    words += ["trainer.max_epochs=1", "optimizer.lr=0.05", "run.dir=run", "backbone.frozen=true"]
    with pytest.MonkeyPatch.context() as patch, forgotten():
        patch.chdir(folder)
        patch.setattr(stopping.WATCH, "begin", lambda: None)
        patch.setattr(sys, "argv", ["scripts/train.py", *words])
        entry.command("", "train", "fluoroscope.train:main", "fluoroscope.config.train:check_run")
    return folder


def parameter(folder, name="last"):
    return folder / f"checkpoints/{name}.ckpt"


def stored(file):
    return torch.load(file, weights_only=True)


def test_the_run_keeps_the_name_and_what_it_learnt(place):
    head = OmegaConf.load(place / "run/config.yaml").head
    assert (head.activation, head.activation_args) == ("mypkg.acts.Snake", {"a": 1.5})
    checkpoint = stored(parameter(place / "run"))
    assert checkpoint["config"]["head"]["activation"] == "mypkg.acts.Snake"
    assert checkpoint["state_dict"]["head.activation.a"].item() not in (1.5, 1.0)


def test_it_is_resumed_only_if_the_command_says_so(place, monkeypatch, capsys):
    shutil.copytree(place / "run", place / "resumed", dirs_exist_ok=True)
    monkeypatch.chdir(place)
    words = ["run.resume=resumed", "trainer.max_epochs=2"]
    before = stored(parameter(place / "resumed"))["state_dict"]["head.activation.a"]
    with forgotten():
        code, _, err = run(monkeypatch, capsys, *words)
        assert code == 2
        assert re.search(NAMES_CODE.format("mypkg.acts.Snake", "mypkg.acts.Snake"), err.strip())
        code, out, err = run(monkeypatch, capsys, *words, SNAKE[0])
    assert code == 0, err
    assert "continues after 1 epoch" in out
    assert "mypkg.acts.Snake units" in out
    after = stored(parameter(place / "resumed"))["state_dict"]["head.activation.a"]
    assert before != after


def test_a_model_of_ones_own_predicts_where_it_is_trusted(own_package, place, films):
    own_package()
    with pytest.raises(InputError, match=NAMES_CODE.format("mypkg.acts.Snake", "mypkg.acts.Snake")):
        fluoroscope.load(place / "run")
    film = next(films.rglob("*.png"))
    for _ in range(2):
        predictor = fluoroscope.load(place / "run", trust=["mypkg"])
        assert 0 < predictor.predict(film).probability["BLOB"] < 1
        with pytest.raises(InputError, match="names code"):  # trust is of one call
            fluoroscope.load(place / "run")


WHOLE = [pytest.param(path, marks=pytest.mark.whole) for path in ("builtins.exec", "a.b")]


@pytest.mark.parametrize("path", ["os.system", "torch.nn.Softplus", *WHOLE])
def test_no_checkpoint_names_code_to_run(place, tmp_path, path):
    shutil.copytree(place / "run", tmp_path / "run")
    for name in ("best", "last"):
        checkpoint = stored(parameter(tmp_path / "run", name))
        checkpoint["config"]["head"] |= {"activation": path, "activation_args": {}}
        torch.save(checkpoint, parameter(tmp_path / "run", name))
    told = NAMES_CODE.format(path, path)
    for open_it in (load_checkpoint, fluoroscope.load):
        with pytest.raises(InputError, match=told):
            open_it(parameter(tmp_path / "run", "best"))
    with pytest.raises(InputError), pytest.warns(UserWarning, match="names code"):
        newest_checkpoint(tmp_path / "run")


USES = {
    "evaluate": ["run.dir=OUT"],
    "explain": ["run.dir=OUT", "films=1", "steps=4"],
    "predict": ["images=FILMS", "out=OUT"],
    "export": ["out=OUT", "format=onnx"],
}


@pytest.mark.whole
@pytest.mark.parametrize("script", USES)
def test_every_command_imports_it_only_if_it_is_trusted(place, films, script):
    out = {"predict": f"{script}.csv", "export": f"{script}.onnx"}.get(script, script)
    words = [word.replace("FILMS", str(films)).replace("OUT", out) for word in USES[script]]
    for more, wanted in (([], 2), (["trust=[my,acts]"], 2), (["trust=[mypkg]"], 0)):
        assert not (place / out).exists()
        code, _, err = end(start(["checkpoint=run", *words, *more], place, script=script))
        assert code == wanted, err
        if wanted:
            assert re.search(NAMES_CODE.format("mypkg.acts.Snake", "mypkg.acts.Snake"), err.strip())
    assert (place / out).exists()


@pytest.mark.whole
def test_the_page_shows_a_film_of_a_model_that_is_trusted(own_package, place, films):
    """In a process of its own, asked over loopback; without trust it does not start."""
    (port,) = free_ports(1)
    words = ["checkpoint=run", f"port={port}", "trainer.accelerator=cpu"]
    code, _, err = end(start(words, place, script="demo"))
    assert code == 2
    assert re.search(NAMES_CODE.format("mypkg.acts.Snake", "mypkg.acts.Snake"), err.strip())
    film = next(films.rglob("*.png"))
    served = start([*words, "trust=[mypkg]"], place, script="demo")
    try:
        shown = asked(f"http://127.0.0.1:{port}/film", film.read_bytes(), served)
    finally:
        served.send_signal(signal.SIGINT)
    code, out, err = end(served, limit_s=60)
    assert (code, err) == (130, "fluoroscope: stopped by SIGINT\n")
    assert f"127.0.0.1:{port}" in out
    own_package()
    expected = fluoroscope.load(place / "run", trust=["mypkg"]).predict(film).probability["BLOB"]
    assert f"BLOB: probability {expected:.3f}, " in shown


def asked(url, content, process, limit_s=120):
    """The answer of a server, as soon as it listens."""
    until = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, content, timeout=limit_s) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            time.sleep(0.2)
    process.kill()
    raise AssertionError(process.communicate())


@pytest.mark.whole
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "head.activation=mypkg.acts.swish,mypkg.acts.squared_relu", "hydra.sweep.dir=OUT"],
        ["--config-dir=conf", "experiment=mine", "run.dir=OUT"],
    ],
)
def test_sweeps_and_experiments_name_activations_of_ones_own(place, films, words):
    from tests.support.films import TINY

    (place / "conf/experiment").mkdir(parents=True, exist_ok=True)
    (place / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\nhead: {activation: mypkg.acts.squared_relu}\n"
    )
    keys = [*TINY, f"data.root={films}", r"data.patient_pattern='(p\d+)_'", "trainer.max_epochs=1"]
    out = f"out{len(words)}"
    code, printed, err = end(start([*keys, *(w.replace("OUT", out) for w in words)], place))
    assert code == 0, err
    assert "squared_relu" in printed


@pytest.mark.whole
def test_an_ablation_trains_it_and_reports_short_names(place, films):
    from tests.support.films import TINY

    keys = [*TINY, f"data.root={films}", r"data.patient_pattern='(p\d+)_'", "trainer.max_epochs=1"]
    heads = "activations=[mypkg.acts.Snake,{mypkg.acts.Snake: {a: 3}},mypkg.acts.swish]"
    words = [*keys, heads, "seeds=1", "data.augment=[]", "run.dir=study"]
    code, _, err = end(start(words, place, script="ablate"))
    assert code == 0, err
    assert len([*(place / "study/heads").glob("*/result.json")]) == 4
    page = (place / "study/report/report.md").read_text()
    assert "Snake(a=3)" in page
    assert "mypkg" not in page.partition("## What was compared")[0]
