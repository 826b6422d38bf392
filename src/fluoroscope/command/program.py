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

Bash completes commands, keys and choices after: eval "$(fluoroscope -sc install=bash)"
"""
COMPLETION = ("-sc", "--shell-completion")


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
    line = os.environ.get("COMP_LINE", "")
    words = line.split()[1:]
    is_query = any(word.startswith("query=") for word in arguments)
    if is_query and (not words or (len(words) == 1 and not line.endswith(" "))):
        print(" ".join(name for name in names() if name.startswith("".join(words))))
    elif is_query and words[0] in names():
        os.environ["COMP_LINE"] = line.replace(f" {words[0]}", "", 1)
        _start(words[0], ["-sc", *arguments])
    elif not is_query:
        sys.argv = ["fluoroscope", "-sc", *arguments]  # the name that the shell completes
        entry.command("", "train", "")  # of which Hydra starts nothing


def _refuse(sentence: str) -> NoReturn:
    print(f"fluoroscope: {sentence}", file=sys.stderr)
    sys.exit(BAD_INPUT)
