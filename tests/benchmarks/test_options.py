"""The keys of a measurement: defaults, refusals, and the commands of the pages."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from benchmarks import gpu, options, step
from benchmarks.options import DEFAULTS, Benchmark, Options, read_job
from fluoroscope.errors import InputError
from tests.benchmarks.jobs import job

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "benchmarks").glob("*.py"))


def documented():
    """Name and arguments of every measurement on the pages and in the docstrings."""
    text = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")
    found = re.findall(r"python -m benchmarks\.([a-z_]+)([^`#\n]*)", text)
    return sorted({(name, words.strip()) for name, words in found})


@pytest.mark.parametrize(("name", "words"), documented())
def test_the_documented_measurements_are_well_formed(name, words):
    assert find_spec(f"benchmarks.{name}")
    overrides = [word for word in shlex.split(words) if "=" in word]
    if name == "gpu":
        assert gpu.read_options(overrides).budget_s == 480
    elif not words.endswith("..."):
        assert read_job(overrides).benchmark.rounds >= 1


def test_every_measurement_is_documented():
    names = {name for name, _ in documented()}
    assert {"gpu", "step", "loader", "startup", "scaling", "diagnostics", "memory"} <= names


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("benchmark.steps=5", "must be a multiple of diagnostics.every_n_steps=2"),
        ("benchmark.stpes=4", "did you mean 'benchmark.steps'?"),
        ("head.activatoin=relu", "did you mean 'head.activation'?"),
        ("diagnostics.enabled=false", "leaves nothing to measure"),
        ("out=nowhere/r.json", "out: there is no folder nowhere"),
        ("benchmark.arms=[watch]", "must be one of extra_pass, monitor, units, watch_all"),
        ("benchmark.rounds=0", "benchmark.rounds must be at least 1; got 0"),
        ("benchmark.processes=[2,0]", "benchmark.processes must be whole numbers of at least 1"),
        ("benchmark.processes=[]", "benchmark.processes must be whole numbers of at least 1"),
        ("data.batch_size=x", "data.batch_size must be a whole number"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(override, message):
    with pytest.raises(InputError) as error:
        job(override)
    assert message in str(error.value)


def test_the_defaults_and_the_schema_have_the_same_keys():
    defaults = OmegaConf.create(DEFAULTS)
    assert set(defaults) == set(Options.__dataclass_fields__)
    assert set(defaults.benchmark) == set(Benchmark.__dataclass_fields__)


def test_a_result_lies_in_a_folder_of_its_own_by_default(tmp_path):
    assert re.fullmatch(r"outputs/[\d_-]+-benchmark/benchmark.json", str(job().out))
    assert job("run.dir=here").out == Path("here/benchmark.json")
    assert job(f"out={tmp_path}/r.json").out == tmp_path / "r.json"


def test_the_training_keeps_its_keys():
    own = ["experiment=question", "head.activation=elu", "head.activation_args.alpha=0.5"]
    cut = read_job([*own, "benchmark.rounds=3"])
    train = cut.train
    assert train.backbone.name.startswith("tf_efficientnet_b4")
    assert (train.data.image_px, train.data.batch_size) == (380, 64)
    assert (train.trainer.accelerator, train.trainer.precision) == ("gpu", "auto")
    assert cut.overrides == own
    assert cut.benchmark.rounds == 3


def test_a_refusal_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["step", "benchmark.rounds=0"])
    with pytest.raises(SystemExit) as end:
        options.run("", lambda job: {}, lambda job, result: None)
    assert end.value.code == 2
    assert capsys.readouterr().err == "fluoroscope: benchmark.rounds must be at least 1; got 0\n"


def test_a_command_shows_its_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["step", "--help"])
    options.run(step.__doc__, step.measure, step.conclude)
    shown = capsys.readouterr().out
    assert "trainer_unwatched" in shown
    assert "rounds: 8" in shown
    assert "every_n_steps: 10" in shown


@pytest.mark.parametrize(
    ("name", "key", "told"),
    [
        ("step", "trainer.max_epochs=-1", "trainer.max_epochs must be at least 1; got -1"),
        ("loader", "data.root=/no/such", "data.root: there is no directory /no/such"),
        pytest.param("scaling", "foo=1", "there is no key foo", marks=pytest.mark.whole),
        pytest.param("startup", "head.width=0", "head.width must be", marks=pytest.mark.whole),
    ],
)
def test_keys_are_refused_before_pytorch_is_imported(name, key, told):
    command = [sys.executable, "-X", "importtime", "-m", f"benchmarks.{name}", "data=nih14"]
    done = subprocess.run(
        [*command, "data.root=.", key], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert not {line.split()[-1] for line in done.stderr.splitlines()} & {"torch", "numpy"}
