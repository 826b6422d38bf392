"""Code of the user's own: what is imported, what is refused, and who may say so."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from fluoroscope import own_code
from fluoroscope.errors import InputError
from fluoroscope.own_code import imported, is_path, is_trusted, trusting

SOURCE = Path(own_code.__file__).parent
KEY = "head.activation"
NESTED = "class Outer:\n    class Inner:\n        pass\n\nprint('imported')\n"


def refusal(path, trust=("mypkg",)):
    with trusting(trust), pytest.raises(InputError) as refused:
        imported(KEY, path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_name_with_a_dot_is_a_path():
    assert [is_path(name) for name in ("relu", "mypkg.acts.Snake", None, 3)] == [0, 1, 0, 0]


def test_a_package_beside_the_working_folder_is_found(own_package, capsys):
    own_package(NESTED)
    with trusting(["mypkg"]):
        assert imported(KEY, "mypkg.acts.Outer").__name__ == "Outer"
        assert imported(KEY, "mypkg.acts.Outer.Inner").__qualname__ == "Outer.Inner"
        assert imported(KEY, "mypkg.acts").__name__ == "mypkg.acts"
    assert capsys.readouterr().out == "imported\n"


@pytest.mark.parametrize(
    ("trust", "trusted"),
    [
        ([], False),
        (["mypkg"], True),
        (["mypkg.acts"], True),
        (["mypkg.acts.Snake"], True),
        (["mypkg.acts.Snake.Inner"], False),
        (["my"], False),
        (["mypkg.act"], False),
        (["acts"], False),
        ([""], False),
        (["torch", "mypkg"], True),
    ],
)
def test_trust_is_by_whole_parts_from_the_start(trust, trusted):
    with trusting(trust):
        assert is_trusted("mypkg.acts.Snake") == trusted
    assert not is_trusted("mypkg.acts.Snake")


def test_trust_ends_also_after_an_error_and_adds_up():
    with suppress(ZeroDivisionError), trusting(["a"]):
        with trusting(["b"]):
            assert own_code.trusted_names() == {"a", "b"}
        assert own_code.trusted_names() == {"a"}
        raise ZeroDivisionError
    assert own_code.trusted_names() == set()


def test_nothing_runs_without_trust(own_package):
    package = own_package("from pathlib import Path\nPath('ran').touch()\nclass Snake: pass\n")
    told = refusal("mypkg.acts.Snake", trust=["my", "torch"])
    assert told.endswith("if you trust it, add trust=[mypkg.acts.Snake]")
    assert not (package.parent / "ran").exists()
    for path in ("torch.nn.Softplus", "os.system", "builtins.print"):
        assert f"add trust=[{path}]" in refusal(path, trust=[])  # not all that os can do
    assert str(package.parent) not in sys.path  # the stranger's folder may hold a json.py


REACHES = """
import functools, os, subprocess, sys, torch
from torch.hub import load as fetch
from subprocess import run

class Snake(torch.nn.Module):
    pass

relu = torch.relu
"""


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("torch.load", "torch.serialization"),
        ("torch.hub.load", "torch.hub"),
        ("fetch", "torch.hub"),
        ("run", "subprocess"),
        ("os.system", os.system.__module__),
        ("subprocess", "subprocess"),
        ("sys.modules", "elsewhere"),
        ("functools.partial", "functools"),
        ("relu", "torch"),
        ("Snake.mro", "elsewhere"),
    ],
)
def test_a_trusted_package_is_not_trusted_with_what_it_imports(own_package, name, home):
    """A stranger could call it with arguments of his own: torch.load with a file of his run."""
    own_package(REACHES)
    said = refusal(f"mypkg.acts.{name}", trust=["mypkg"])
    assert f"which mypkg has from {home}; if you trust it, add trust=[mypkg.acts.{name}]" in said


def test_a_whole_name_is_trusted_wherever_it_leads(own_package):
    own_package(REACHES)
    with trusting(["mypkg.acts.relu"]):
        assert imported(KEY, "mypkg.acts.relu") is torch.relu
    assert "has from torch.hub" in refusal("mypkg.acts.torch.hub.load", ["mypkg.acts.torch"])


@pytest.mark.parametrize(
    "name", ["Snake.__init__.__globals__", "__builtins__", "__loader__.get_data", "Snake.__class__"]
)
def test_no_name_leads_through_pythons_own(own_package, name):
    own_package(REACHES)
    assert "must be the import path" in refusal(f"mypkg.acts.{name}", trust=["mypkg"])


def test_an_object_that_the_package_itself_moves_is_its_own(own_package):
    package = own_package("from mypkg.hidden import Snake\n")
    (package / "hidden.py").write_text("class Snake: pass\nclass Other: pass\n")
    with trusting(["mypkg"]):
        assert imported(KEY, "mypkg.acts.Snake").__module__ == "mypkg.hidden"
    assert "which mypkg has from mypkg.hidden" in refusal("mypkg.acts.Snake", ["mypkg.acts"])


def test_a_look_alike_and_a_line_break_show_in_the_refusal(own_package):
    own_package()
    assert r"'m\u0443pkg.acts.Snake'" in refusal("m\u0443pkg.acts.Snake")
    assert r"got 'a.b\nall is well'" in refusal("a.b\nall is well")


def test_one_name_is_trusted_like_a_list_of_it():
    with trusting("mypkg"):
        assert own_code.trusted_names() == {"mypkg"}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("mypkg.acts.Snak", "mypkg.acts has no Snak (did you mean 'Snake'?)"),
        ("mypkg.act.Snake", "mypkg has no act (did you mean 'acts'?)"),
        ("mypkg.acts.Snake.Inner", "mypkg.acts.Snake has no Inner"),
        ("mypgk.acts.Snake", "there is no module mypgk (did you mean 'mypkg'?)"),
        ("mypkg.acts.", "must be the import path of a class or function"),
        ("mypkg.acts.Snake()", "must be the import path of a class or function"),
        (".acts.Snake", "must be the import path of a class or function"),
        ("../mypkg.acts", "must be the import path of a class or function"),
        ("mypkg.class.Snake", "must be the import path of a class or function"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_the_nearest(own_package, path, told):
    own_package("class Snake: pass")
    said = refusal(path, trust=["mypkg", "mypgk", "", "../mypkg"])
    assert said.startswith(KEY)
    assert told in said


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ValueError('no such table. Advice.')", "(ValueError: no such table)"),
        ("import does_not_exist", "(ModuleNotFoundError: No module named 'does_not_exist')"),
        ("import sys; sys.exit(3)", "(it exits)"),
        ("exit()", "(it exits)"),
        ("def Snake(:", "(SyntaxError: invalid syntax"),
        ("from mypkg.acts import Snake", "(ImportError: cannot import name 'Snake'"),
        ("def __getattr__(name): raise OSError('lazy')", "(OSError: lazy)"),
    ],
)
def test_a_module_whose_own_code_fails_is_named(own_package, code, told):
    own_package(code)
    said = refusal("mypkg.acts.Snake")
    assert said.startswith("head.activation=mypkg.acts.Snake: mypkg.acts cannot be imported (")
    assert told in said


def test_an_import_that_fails_in_the_package_itself_is_named(own_package):
    (own_package("class Snake: pass") / "__init__.py").write_text("raise RuntimeError('broken')")
    assert "mypkg cannot be imported (RuntimeError: broken)" in refusal("mypkg.acts.Snake")


def test_installed_packages_and_functions_of_pytorch_are_found():
    with trusting(["torch"]):
        assert imported(KEY, "torch.nn.Softplus") is torch.nn.Softplus
        assert imported(KEY, "torch.nn.functional.silu") is torch.nn.functional.silu


def test_nothing_else_imports_by_a_name_of_the_configuration():
    """Every other import by name takes it from a table in the source."""
    by_name = re.compile(r"\b(import_module|__import__|instantiate|get_class|get_method|locate)\(")
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if by_name.search(path.read_text())
    }
    tables = {"model/activations.py", "sources/__init__.py", "config/library_names.py"}
    assert found == {"own_code.py", "command/run_one.py", *tables}


def test_the_module_is_light():
    code = "import sys, fluoroscope.own_code\nassert not {'torch', 'hydra'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
