"""Runs a notebook's cells without Jupyter: Python, and lines `!command` with `{name}`."""

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path

COMMAND = re.compile(r"^!(.+)$", re.M)


def code_cells(path: Path) -> list[str]:
    """The sources of the code cells."""
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def as_python(source: str) -> str:
    """The cell with its `!` lines as calls of `_command`, which takes the line as an f-string.

    Raises:
        SyntaxError: it is not Python, or uses another magic of IPython.
    """
    source = COMMAND.sub(lambda match: f'_command(f"""{match[1]}""")', source)
    ast.parse(source)
    return source


def commands(path: Path, names: dict[str, str]) -> list[list[str]]:
    """The words of all `!` lines, with values for the names in them."""
    lines = [line for cell in code_cells(path) for line in COMMAND.findall(cell)]
    return [shlex.split(line.format(**names)) for line in lines]


def run_notebook(path: Path, cwd: Path, **env: str) -> dict:
    """All cells in one namespace, with commands that start in `cwd`; every command succeeds.

    Returns:
        The namespace, with the value of the last line of cell n, where it has one, as `_n`.
    """

    def command(line: str) -> None:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(shlex.split(line), cwd=cwd, env=env, check=False, **pipes)
        assert done.returncode == 0, f"{line}\n{done.stdout}"

    place: dict = {"_command": command}
    for number, source in enumerate(code_cells(path)):
        tree = ast.parse(as_python(source))
        last = tree.body[-1]
        exec(compile(ast.Module(tree.body[:-1], []), f"cell {number}", "exec"), place)
        if isinstance(last, ast.Expr):
            place[f"_{number}"] = eval(compile(ast.Expression(last.value), "", "eval"), place)
        else:
            exec(compile(ast.Module([last], []), f"cell {number}", "exec"), place)
    return place
