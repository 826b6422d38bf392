"""Imports point one way, so that each part can be read, tested and replaced alone."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/fluoroscope"
# What everything may import.
BASE = {
    *("choices", "errors", "escaping", "atomic_write", "console", "keys", "__version__"),
    *("commands", "own_code"),
}
KEYS = "diagnostics.keys"  # the table of the metrics, light and alone among the diagnostics
# What each part may import besides itself and `BASE`: the table of the layers.
LAYERS = {
    "launch": set(),
    "console": {"launch"},  # asks whether this is the first process
    "statistics": set(),
    "config": {"launch", "sources", "model"},  # of these only the keys and choices they declare
    "files": set(),
    "elementwise": set(),
    "phantom": {"files"},
    "data": {"files"},
    "sources": {"files", "data", "phantom", "config"},
    "model": {"files", "elementwise"},
    "diagnostics": {"files", "elementwise"},
    "run": {"statistics", "launch", "config", "files", "data", "model", "diagnostics"},
    "command": {"launch", "config"},
    "build": {"launch", "run", "config", "data", "sources", "model", "diagnostics"},
    "estimate": {"build", "launch", "run", "config", "data", "model"},
    "train": {"estimate", "build", "command", "launch", "run", "config", "data", "model"},
}
ENTRIES = {"evaluate": {"train", "sources", "evaluation", "trained", "probes"}}
ON_TOP = {
    "trained": {
        *("build", "run", "config", "sources", "data", "files", "model", "statistics", "launch"),
    },
    "instrument": {"diagnostics", "elementwise"},
    "reporting": {"statistics", "launch", "config", "run"},
    "tracking": {"reporting", "launch", "config", "run", "diagnostics"},
    "report": {"reporting", "tracking", "config"},
    "evaluation": {
        *("reporting", "trained", "statistics", "build", "run", "config", "data", "sources"),
        *("model", "launch", "files"),
    },
    "probes": {
        *("evaluation", "reporting", "statistics", "trained", "run", "data", "files"),
        "phantom",
    },
    "prediction": {"trained", "sources", "config", "files"},
    "export": {"evaluation", "trained", "build", "run", "config", "data", "files"},
    "explanation": {
        *("trained", "build", "run", "config", "data", "files", "sources", "phantom", "model"),
        *("statistics", "elementwise", "reporting"),
    },
    "doctor": {"run", "config", "launch", "sources", "data", "files"},
    "network_census": {
        *("instrument", "prediction", "trained", "reporting", "run", "config", "sources", "model"),
        "diagnostics",
    },
    "demo": {"prediction", "explanation", "reporting", "trained", "config", "files"},
    "audit": {"reporting", "data", "files", "sources"},
    "prepare": {"audit", "run", "config", "data", "files", "sources", "model", "launch"},
    "ablation": {
        *("build", "train", "run", "config", "data", "model", "diagnostics", "launch"),
        *("reporting", "report", "statistics", "elementwise"),
    },
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path):
    """Parts of `fluoroscope` that a file imports."""
    names = (name.removeprefix("fluoroscope.") for name in imported(path) if "fluoroscope" in name)
    return {"keys" if name.startswith(KEYS) else name.split(".")[0] for name in names}


def files_of(part):
    return sorted((SOURCE / part).rglob("*.py")) or [SOURCE / f"{part}.py"]


def part_of(path):
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def test_every_part_has_a_place_among_the_layers():
    found = {part_of(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert found | BASE == {*BASE, *LAYERS, *ENTRIES, *ON_TOP}


def test_the_package_does_not_import_the_benchmarks():
    for path in SOURCE.rglob("*.py"):
        assert not any(name.split(".")[0] == "benchmarks" for name in imported(path)), path


@pytest.mark.parametrize("part", [*LAYERS, *ENTRIES, *ON_TOP])
def test_a_part_imports_only_what_lies_below_it(part):
    below = {**LAYERS, **ON_TOP}.get(part) or LAYERS["train"] | ENTRIES.get(part, set())
    for path in files_of(part):
        assert own(path) <= {part, *BASE, *below}, path


LIGHT = ["commands", "errors", "launch", "config", "command"]


LIGHT_FILES = [path for part in LIGHT for path in files_of(part)] + [SOURCE / "diagnostics/keys.py"]


@pytest.mark.parametrize("path", LIGHT_FILES, ids=str)
def test_nothing_heavy_is_imported_by_what_checks_the_command_line(path):
    roots = {entry.split(".")[0] for entry in imported(path)}
    assert not roots & {"torch", "pytorch_lightning", "timm", "wandb", "pandas", "numpy"}
