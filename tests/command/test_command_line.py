"""Hydra's flags: each works in any place of the command line, or is refused by its name."""

import os
import re
import subprocess
import sys
from functools import partial

import pytest
import yaml
from hydra.main import get_args_parser

from fluoroscope.command import command_line, composition
from fluoroscope.config.train import check_train
from fluoroscope.errors import InputError
from tests.command.test_entry import HEAVY, SCRIPTS, TRAIN, record

MINE = """\
# @package _global_
defaults:
  - override /backbone: lite0
head: {width: 33}
run: {experiment: mine}
"""


@pytest.fixture
def own(tmp_path):
    """A folder of the user's own, with the experiment `mine`."""
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mine.yaml").write_text(MINE)
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        ("seed=2 --cfg job head.width=5", "--cfg=job seed=2 head.width=5"),
        ("seed=2 -c all -p head --resolve", "--cfg=all --resolve --package=head seed=2"),
        ("seed=1,2 -m head.norm=none", "--multirun seed=1,2 head.norm=none"),
        ("seed=3 --multi", "--multirun seed=3"),
        ("seed=3 -i", "--info=all seed=3"),
        ("-sc install=bash", "--shell-completion install=bash"),
        ("a=1 -r b=2", "--run a=1 b=2"),
        ("a=1", "a=1"),
    ],
)
def test_flags_come_first_whatever_their_place(words, ordered):
    assert command_line.ordered(command_line.read(words.split())) == ordered.split()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--config-name=evaluate", "--config-name is not available: each command reads its own"),
        ("seed=1 -cn mine", "add --config-dir DIR experiment=NAME"),
        ("-cp /etc", "--config-path is not available"),
        ("--experimental-rerun x.pickle", "continue the run with run.resume=RUN"),
        ("--config-dir /no/such experiment=mine", "--config-dir: there is no folder /no/such"),
        ("--resolve", "--resolve changes what --cfg prints; add --cfg job"),
        ("--package head seed=3", "--package changes what --cfg prints"),
        ("-m --cfg job seed=1,2", "--cfg and --multirun cannot be combined; leave one out"),
        ("-r -m", "--run and --multirun cannot be combined"),
        ("-i searchpath -sc install=bash", "--shell-completion and --info cannot be combined"),
        ("--cfg", "--cfg/-c: expected one argument; --hydra-help lists the flags"),
        ("--cfg jobs", "invalid choice: 'jobs' (choose from"),
        ("--conf x", "ambiguous option: --conf could match --config-path"),
        ("seed=1 --epochs=3 head.width=2", "there is no option --epochs=3; keys are set as KEY="),
    ],
)
def test_flags_without_a_meaning_are_refused_by_name(words, told):
    with pytest.raises(InputError) as refusal:
        command_line.read(words.split())
    assert told in str(refusal.value)


def test_every_flag_of_hydra_is_known():
    flags = {max(a.option_strings, key=len) for a in get_args_parser()._actions if a.option_strings}
    shown = {"--help", "--version", "--config-dir"}
    known = {*command_line.JOBS, *command_line.OF_CFG, *command_line.REFUSED, *shown}
    assert flags == known


def test_the_example_of_the_page_works(tmp_path):
    page = (SCRIPTS.parent / "docs/experiments.md").read_text()
    text = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/narrow.yaml").write_text(text)
    options = command_line.read(["experiment=narrow", "--config-dir", str(tmp_path), "seed=3"])
    folder, [(cfg, _)] = composition.compose_jobs("train", options)
    checked = check_train(cfg)
    assert folder is None
    assert (checked.head.width, checked.head.norm, checked.seed) == (64, "layer", 3)
    assert checked.backbone.name == "tf_efficientnet_lite0"
    assert checked.logger.group == "narrow-phantom"
    options = command_line.read(["-m", f"--config-dir={tmp_path}", "experiment=narrow,quickstart"])
    _, jobs = composition.compose_jobs("train", options)
    assert [cfg.run.experiment for cfg, _ in jobs] == ["narrow", "quickstart"]


def test_flags_print_and_run_nothing(tmp_path, own):
    lines = [
        ("seed=2", "--cfg", "job", "head.width=5"),
        (f"--config-dir={own}", "-c", "job", "-p", "head", "experiment=mine"),
        ("--cfg", "job", "-p", "run", "--resolve", "head.activation=gelu", "seed=7"),
        ("--info", "searchpath"),
        ("--hydra-help",),
        ("-sc", "install=bash"),
        ("--version",),
    ]
    done = record(tmp_path, *[(TRAIN, *line) for line in lines])
    for (code, _, err, roots), line in zip(done, lines, strict=True):
        assert (code, err) == (0, ""), line
        assert not set(HEAVY) & set(roots)
    out = [entry[1] for entry in done]
    whole = yaml.safe_load(out[0])
    assert (whole["seed"], whole["head"]["width"]) == (2, 5)
    assert yaml.safe_load(out[1])["width"] == 33
    assert yaml.safe_load(out[2])["name"] == "gelu-s7"
    assert "conf" in out[3]
    assert "--multirun,-m" in out[4]
    assert "hydra_bash_completion" in out[5]
    assert out[6].startswith("fluoroscope ")
    assert {path.name for path in tmp_path.iterdir()} == {"own"}


def test_an_own_folder_counts_in_every_composition(tmp_path, own):
    (own / "experiment/broken.yaml").write_text("# @package _global_\nhead: {widht: 3}\n")
    given = f"--config-dir={own}"
    lines = {
        (
            given,
            "experiment=mien",
        ): "mine, question, quickstart, remedies; got 'mien' (did you mean",
        ("experiment=mine",): "experiment must be one of question, quickstart, remedies; got",
        (given, "experiment=broken"): "there is no key head.widht (did you mean 'head.width'?)",
        ("experiment=mine", given, "head.activation=gleu"): "got 'gleu' (did you mean 'gelu'?)",
        ("-m", given, "experiment=mine,quickstart", "seed=1,x"): "seed must be a whole number; got",
        ("--cfg", "job", "-p", "nope", given): "nope",
        ("-sc", "install=csh"): "No completion plugin for 'csh' found",
    }
    for (code, _, err, _), (line, told) in zip(
        record(tmp_path, *[(TRAIN, *line) for line in lines]), lines.items(), strict=True
    ):
        assert code in (1, 2), line
        assert told in err
        assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"own"}


def test_completion_offers_keys_and_choices(tmp_path):
    line = "python train.py data=ni"
    done = subprocess.run(
        [sys.executable, str(TRAIN), "-sc", "query=bash"],
        env=os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["data=nih14"]


@pytest.mark.parametrize("flags", ["--cfg job", "-sc install=bash"])
def test_what_hydra_prints_ends_with_its_reader_or_says_that_the_disk_is_full(flags):
    command = f"{sys.executable} {SCRIPTS / 'train.py'} {flags}"
    run = partial(subprocess.run, shell=True, capture_output=True, text=True, check=False)
    assert run(f"{command} | true").stderr == ""
    done = run(f"{command} > /dev/full")
    told = "fluoroscope: the output cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_help_ends_with_its_reader():
    command = f"{sys.executable} {SCRIPTS / 'train.py'} --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (
        "Train a chest x-ray classifier and watch the units of its head.\n",
        "",
    )
