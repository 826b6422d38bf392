"""A package of a user's own in the working folder, of which nothing is left after the test."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from tests.support.films import write_films

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
NAME = "mypkg"


def write_package(folder: Path, acts: str | None = None) -> Path:
    """Write `mypkg` with the module `acts`; without its code the example of docs/extend.md."""
    package = folder / NAME
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    code = (EXAMPLES / NAME / "acts.py").read_text() if acts is None else acts
    (package / "acts.py").write_text(code)
    return package


def write_clinic(root: Path) -> Path:
    """Films and the table that the example's source reads, with the finding Mass of two sites."""
    files = sorted(write_films(root).rglob("*.png"))
    table = pd.DataFrame({"file": [str(f.relative_to(root)) for f in files]})
    table["patient"] = [f.stem.partition("_")[0] for f in files]
    table["site"] = ["north" if int(p[1:]) < 30 else "south" for p in table["patient"]]
    table["Mass"] = [int(f.parent.name == "BLOB") for f in files]
    table.to_csv(root / "findings.csv", index=False)
    return root


@contextmanager
def forgotten() -> Iterator[None]:
    """Begin without the package; forget it and the folders it was found in at the end."""
    path = [*sys.path]
    _forget()
    try:
        yield
    finally:
        _forget()
        sys.path[:] = path


def _forget() -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == NAME:
            del sys.modules[name]
