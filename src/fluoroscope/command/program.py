"""`fluoroscope NAME ARGUMENTS` does the same as `python scripts/NAME.py ARGUMENTS`."""

import ast
import os
import runpy
import sys
from typing import NoReturn

from fluoroscope import __version__
from fluoroscope.command import entry
from fluoroscope.commands import PROGRAM, SCRIPTS, names
from fluoroscope.errors import InputError, check_choice
from fluoroscope.launch import process_setup, stopping
from fluoroscope.launch.run_status import BAD_INPUT

USAGE = """\
Train chest x-ray classifiers, and see what the head's activation does to the gradient.

  fluoroscope COMMAND KEY=VALUE ...      fluoroscope COMMAND --help

{commands}

Complete commands, keys and choices on Tab, in this shell:
  bash  eval "$(fluoroscope -sc install=bash)"
  zsh   autoload -Uz compinit bashcompinit; compinit; bashcompinit; the line of bash
  fish  fluoroscope -sc install=fish | source
"""
COMPLETION = ("-sc", "--shell-completion")
FOLDER = "--config-dir"  # of the user's own files, whose names are choices too


def main() -> None:
    """Run the script of the command; processes that it starts run the script itself."""
    stopping.listen()
    os.environ[PROGRAM] = "1"
    word, *arguments = sys.argv[1:] or ["--help"]
    if word in ("-h", "--help"):
        process_setup.end_with_reader()
        print(help_text(), end="")
    elif word == "--version":
        print(f"fluoroscope {__version__}")
    elif word in COMPLETION:
        _complete(arguments)
    else:
        _start(word, arguments)


def help_text() -> str:
    """Usage, and one line for each command: the first line of its script's docstring."""
    width = max(map(len, names()))
    return USAGE.format(commands="\n".join(f"  {n:{width}}  {_about(n)}" for n in names()))


def _about(name: str) -> str:
    docstring = ast.get_docstring(ast.parse((SCRIPTS / f"{name}.py").read_text()))
    return (docstring or "").partition("\n")[0]


def _start(name: str, arguments: list[str]) -> None:
    try:
        check_choice("the command", name, names())
    except InputError as error:
        _refuse(f"{error}; fluoroscope --help lists them")
    sys.argv = [str(SCRIPTS / f"{name}.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _complete(arguments: list[str]) -> None:
    """Answer the shell: with commands first, then as Hydra does for the command of the line."""
    query = next((word for word in arguments if word.startswith("query=")), None)
    if query is None:
        sys.argv = ["fluoroscope", "-sc", *arguments]  # the name that the shell completes
        entry.command("", "train", "")  # of which Hydra starts nothing
        return
    line = os.environ.get("COMP_LINE", "")
    words = line.split()[1:] + [""] * line.endswith(" ")
    if len(words) < 2:
        started = "".join(words)
        print(("\n" if query == "query=fish" else " ").join(_starting(started)))
    elif words[0] in names() and not words[-1].startswith("-") and words[-2] != FOLDER:
        os.environ["COMP_LINE"] = line.replace(f" {words[0]}", "", 1)
        folder = words[words.index(FOLDER) + 1 :][:1] if FOLDER in words else []
        _start(words[0], ["-sc", *arguments, *([FOLDER, *folder] if folder else [])])


def _starting(text: str) -> list[str]:
    return [name for name in names() if name.startswith(text)]


def _refuse(sentence: str) -> NoReturn:
    print(f"fluoroscope: {sentence}", file=sys.stderr)
    sys.exit(BAD_INPUT)
