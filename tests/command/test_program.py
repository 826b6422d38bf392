"""`fluoroscope NAME` does what `python scripts/NAME.py` does, and texts name the user's call."""

import ast
import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fluoroscope import commands
from fluoroscope.command import entry, program
from fluoroscope.errors import InputError
from fluoroscope.launch.error_template import error_template
from tests.command.test_entry import HEAVY

SOURCE = Path(commands.__file__).parent


@pytest.fixture
def call(monkeypatch, capsys):
    """`fluoroscope ARGUMENTS` in this process: exit code, standard output, standard error."""

    def run(*arguments, **environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(commands.PROGRAM, "")  # set by the program; restored after the test
        monkeypatch.delenv(commands.PROGRAM)
        monkeypatch.setattr(sys, "argv", ["/bin/fluoroscope", *arguments])
        code = 0
        try:
            program.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            monkeypatch.delenv(commands.PROGRAM, raising=False)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def started(monkeypatch):
    """What the scripts ask for: each call of `entry.command`, which then does nothing."""
    calls = []
    monkeypatch.setattr(entry, "command", lambda *given: calls.append((sys.argv, given)))
    return calls


@pytest.mark.parametrize("name", commands.names())
def test_a_command_is_its_script(name, call, started):
    """The table of commands: a docstring, `conf/NAME.yaml`, and two functions that exist."""
    call(name, "a=1", "-m")
    runpy.run_path(str(commands.SCRIPTS / f"{name}.py"), run_name="__main__")
    (argv, given), (_, by_script) = started
    assert argv == [str(commands.SCRIPTS / f"{name}.py"), "a=1", "-m"]
    assert given == by_script
    _, config_name, *places = given
    assert config_name == name
    assert (commands.CONF / f"{name}.yaml").is_file()
    for place in places:
        module, function = place.split(":")
        assert re.search(rf"^def {function}\(", Path(find_spec(module).origin).read_text(), re.M)


def test_help_lists_every_command_in_one_line_each(call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    listed = re.findall(r"^  (\w+) +[A-Z].*[.?]$", out, re.M)
    assert listed == commands.names()
    assert call() == call("-h") == (0, out, "")


def test_help_is_that_of_the_script_with_the_name_that_was_called(call, started):
    for name in commands.names():
        call(name)
    for _, (doc, config_name, *_) in started:
        text = entry.help_text(doc, config_name)
        assert commands.as_called(doc.strip()) in text
        assert f"python scripts/{config_name}.py " in text
        assert "fluoroscope train" not in text


def test_the_program_s_help_imports_nothing_and_names_no_script(tmp_path):
    code = "import sys; sys.argv = ['fluoroscope', *{}]; from fluoroscope.command.program import "
    code += "main; main(); print(*{{name.partition('.')[0] for name in sys.modules}})"
    for arguments in (["--help"], ["train", "--help"], ["sync", "-h"]):
        line = [sys.executable, "-c", code.format(arguments)]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
        *shown, roots = done.stdout.splitlines()
        assert not re.findall(r".*scripts/\w+\.py.*", "\n".join(shown))
        assert any(line.startswith("  fluoroscope ") for line in shown)
        assert not {*HEAVY, "hydra", "omegaconf", "yaml"} & set(roots.split())


def test_an_unknown_command_is_refused_in_one_sentence(call):
    code, out, err = call("trian", "seed=2")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "got 'trian' (did you mean 'train'?); fluoroscope --help lists them" in err
    assert call("--version")[1].startswith("fluoroscope ")


# ------------------------------------------------------------------------- texts that name commands
def texts_of(path):
    """Strings in a file that are not docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [] if id(node) in docstrings else [(node.lineno, node.value)]


def test_no_text_of_the_package_names_a_script():
    """But by `commands.called`: who has installed the package has no `scripts/`."""
    places = [path for path in SOURCE.rglob("*.py") if path.name != "commands.py"]
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in places
        for line, text in texts_of(path)
        if re.search(r"scripts/", text)
    ]
    assert found == []
    pages = [path for path in SOURCE.rglob("templates/*") if "scripts/" in path.read_text()]
    assert pages == []


def test_texts_name_the_call_of_this_user(monkeypatch):
    text = "run python scripts/evaluate.py or scripts/predict.py, sbatch scripts/slurm/train.sbatch"
    assert commands.as_called("run scripts/a.py") == "run python scripts/a.py"
    assert (SOURCE.parents[1] / commands.sbatch_file()).is_file()
    monkeypatch.setenv(commands.PROGRAM, "1")
    assert commands.called("train") == "fluoroscope train"
    told = "run fluoroscope evaluate or fluoroscope predict, sbatch scripts/slurm/train.sbatch"
    assert commands.as_called(text) == told


def test_the_record_of_an_error_keeps_the_name_of_a_command():
    place = "outputs/Jane Doe"
    error = InputError(f"{place} is not calibrated; run {commands.called('evaluate')} first")
    assert error_template(error) != ""  # made here, outside of the package

    from fluoroscope.evaluation.ensemble import not_calibrated

    told = error_template(not_calibrated(place))
    assert "run python scripts/evaluate.py checkpoint=<place> first" in told
    assert "Jane" not in told


# -------------------------------------------------------------------------------------- completion
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fluoroscope tr", ["train"]),
        ("fluoroscope ex", ["explain", "export"]),
        ("fluoroscope", commands.names()),
        ("fluoroscope train data=ni", ["data=nih14"]),
        ("fluoroscope evaluate spl", ["split="]),
        ("fluoroscope trian data=ni", []),
        ("fluoroscope train --con", []),
        ("fluoroscope -", []),
        ("fluoroscope train --config-dir own experiment=my", ["experiment=mystudy"]),
        ("fluoroscope train --config-dir ow", []),  # for the shell, which completes files
        ("fluoroscope train --config-dir ", []),
    ],
)
def test_the_shell_is_offered_commands_keys_and_choices(line, offered, call, tmp_path, monkeypatch):
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mystudy.yaml").touch()
    monkeypatch.chdir(tmp_path)
    for shell, between in (("bash", " "), ("fish", "\n")):
        code, out, err = call("-sc", f"query={shell}", COMP_LINE=line, COMP_POINT=str(len(line)))
        assert (code, out.strip(), err) == (0, between.join(offered), "")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.whole
def test_bash_completes_the_program(tmp_path):
    """As after Tab, with the function that the program's own output installs."""
    (tmp_path / "fluoroscope").write_text(f'#!/bin/sh\nexec {sys.executable} -m fluoroscope "$@"\n')
    (tmp_path / "fluoroscope").chmod(0o755)
    script = """
    eval "$(fluoroscope -sc install=bash)"
    complete -p fluoroscope
    COMP_LINE="fluoroscope train data=ni" COMP_POINT=25 COMP_CWORD=2 hydra_bash_completion
    echo "offered ${COMPREPLY[@]}"
    """
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env["PYTHONPATH"] = str(SOURCE.parent)
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert "-F hydra_bash_completion fluoroscope" in done.stdout
    assert done.stdout.splitlines()[-1] == "offered data=nih14"
