"""Help, options and exit codes; what a user gets wrong is in `test_bad_input`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fluoroscope.command import command_line, entry, run_one, sweep
from fluoroscope.config import CONF

SCRIPTS = Path(__file__).parents[2] / "scripts"
TRAIN = SCRIPTS / "train.py"
HEAVY = ("torch", "numpy", "pandas", "timm", "pytorch_lightning", "wandb", "albumentations", "cv2")
# Runs a script for each list of arguments, and tells exit code and imported modules after it.
RECORDER = """
import contextlib, io, json, runpy, sys
for script, *arguments in json.loads(sys.argv[1]):
    sys.argv, out, err, code = [script, *arguments], io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    roots = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps([code, out.getvalue(), err.getvalue(), roots]))
"""


def record(cwd, *lines):
    """Of each line: exit code, standard output, standard error, imported top-level modules."""
    command = [sys.executable, "-c", RECORDER, json.dumps([list(map(str, line)) for line in lines])]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_script_has_help_that_imports_nothing(tmp_path):
    lines = [(script, flag) for script in sorted(SCRIPTS.glob("*.py")) for flag in ("--help", "-h")]
    assert len(lines) >= 4
    for (script, _), (code, out, err, roots) in zip(lines, record(tmp_path, *lines), strict=True):
        assert (code, err) == (0, ""), script
        assert out.count(f"python scripts/{script.name}") >= 1, "an example"
        assert not {*HEAVY, "hydra", "omegaconf", "yaml"} & set(roots)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_groups_keys_and_defaults():
    text = entry.help_text("Train.", "train")
    assert text.startswith("Train.\n")
    for group in ("data", "experiment"):
        choices = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        assert f"  {group}={'|'.join(choices)}\n" in text
    assert "  width: 896\n" in text
    assert "hydra:" not in text.partition("What the choices set")[0]


def test_bad_keys_and_values_are_refused_before_anything_heavy_is_imported(tmp_path):
    lines = [("head.activatoin=gelu",), ("seed=abc",), ("trainer=gpus",), ("data=table",)]
    lines += [("-m", "seed=1,x"), ("optimizer.warmup_frac=2",), ("run.resume=nowhere",)]
    for code, out, err, roots in record(tmp_path, *[(TRAIN, *line) for line in lines]):
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("fluoroscope: ")
        assert "hydra" in roots
        assert not set(HEAVY) & set(roots)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_key_ends_the_process_with_code_2(tmp_path):
    command = [sys.executable, str(TRAIN), "head.activatoin=gelu"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "fluoroscope: there is no key head.activatoin (did you mean 'head.activation'?); "
        "--help shows them all\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("seed=2", "seed=2"),
        ("head.activation_args.alpha=0.5", "++head.activation_args.alpha=0.5"),
        ("backbone.args.drop_path_rate=0.2", "++backbone.args.drop_path_rate=0.2"),
        ("data.root=~/films", "data.root=/home/a/films"),
        ("data.root=~", "data.root=/home/a"),
        ("data.root=a~/b", "data.root=a~/b"),
        ("-m", "-m"),
    ],
)
def test_arguments_are_spelt_out(typed, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    assert command_line.spell_out(typed) == meant


def test_an_empty_run_folder_is_dropped_and_no_other(tmp_path):
    for name in ("empty", "full", "sweep/0"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full/config.yaml").touch()
    (tmp_path / "sweep/multirun.yaml").touch()
    for name in ("empty", "full", "sweep/0"):
        sweep.drop_empty(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_a_sweep_that_holds_a_run_stays(tmp_path):
    for name in ("0", "1"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
    (tmp_path / "sweep/0/result.json").touch()
    (tmp_path / "sweep/multirun.yaml").touch()
    sweep.drop_empty(tmp_path / "sweep/1")
    assert {p.name for p in (tmp_path / "sweep").iterdir()} == {"0", "multirun.yaml"}


def test_own_warnings_are_one_line_and_others_keep_their_place():
    shorten = run_one._shorten(
        lambda message, category, file, line, *rest: f"{file}:{line}: {message}"
    )
    here = run_one.__file__
    assert shorten("short", UserWarning, here, 3) == "fluoroscope: warning: short\n"
    assert shorten("other", UserWarning, "/lib/x.py", 3) == "/lib/x.py:3: other"
