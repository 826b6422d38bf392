"""Imports point one way, so that each part can be read, tested and replaced alone."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/fluoroscope"
PARTS = {"files": set(), "data": {"files"}, "model": set(), "diagnostics": set()}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path):
    """Names below `fluoroscope.` that a file imports."""
    names = (name.removeprefix("fluoroscope.") for name in imported(path) if "fluoroscope" in name)
    return {name.split(".")[0] for name in names}


def test_the_parts_import_neither_each_other_nor_what_builds_them():
    files = [path for part in PARTS for path in sorted((SOURCE / part).glob("*.py"))]
    assert len(files) > 15
    for path in files:
        part = path.parent.name
        assert own(path) <= {part, "errors", *PARTS[part]}, path


def test_sources_know_the_study_table_and_nothing_of_the_run():
    files = sorted((SOURCE / "sources").glob("*.py"))
    assert len(files) > 5
    for path in files:
        assert own(path) <= {"sources", "data", "files", "errors", "schema"}, path


def test_only_the_builder_and_the_story_know_configuration():
    readers = {path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if "config" in own(path)}
    core = {path.stem for path in readers if path.parent == Path()}
    assert core <= {"build", "train", "resume", "evaluate", "summary", "cli"}
    assert {path.parent.name for path in readers} <= {"", "ablation", "benchmark", "prepare"}


@pytest.mark.parametrize(
    ("folder", "knowers"),
    [
        ("reporting", {"reporting", "ablation", "audit"}),
        ("ablation", {"ablation"}),
        ("benchmark", set()),
        ("prepare", {"prepare", "benchmark"}),
        ("audit", {"audit", "prepare"}),
    ],
)
def test_the_core_does_not_know_what_is_built_on_it(folder, knowers):
    found = {path.parent.name for path in SOURCE.rglob("*.py") if folder in own(path)}
    assert found <= {folder, *knowers}


def test_nothing_heavy_is_imported_by_what_checks_the_command_line():
    light = ("cli", "config", "errors", "identity", "job", "launching", "outcome", "sweep")
    for name in [f"{stem}.py" for stem in light]:
        roots = {entry.split(".")[0] for entry in imported(SOURCE / name)}
        assert not roots & {"torch", "pytorch_lightning", "timm", "wandb", "pandas", "numpy"}
