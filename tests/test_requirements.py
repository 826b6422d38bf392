"""Versions: the floors of pyproject.toml, constraints.txt and its companion with hashes."""

import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.licences import direct

ROOT = Path(__file__).parents[1]
NEEDS = direct()
PINNED = dict(line.strip().split("==") for line in (ROOT / "constraints.txt").open())
HASHED = (ROOT / "requirements-hashed.txt").read_text()


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.name)
def test_every_package_has_a_floor_below_the_pinned_version(need):
    floors = [s.version for s in need.specifier if s.operator in (">=", "==")]
    assert len(floors) == 1, f"{need.name} needs a lowest version that `make test-floors` passes"
    pinned = PINNED[canonicalize_name(need.name)]
    assert need.specifier.contains(pinned)
    assert Version(floors[0]) <= Version(pinned)


# Below, a file or a checkpoint of a stranger could run code, or a page could.
SAFE = {
    "torch": "2.10",  # torch.load(weights_only=True) was not safe
    "pillow": "12.2",
    "pydicom": "3.0.2",
    "jinja2": "3.1.6",
    "safetensors": "0.4",
    "pyarrow": "14.0.1",
    "scikit-learn": "1.5",
}


@pytest.mark.parametrize("name", SAFE)
def test_no_floor_has_a_known_hole(name):
    (need,) = [need for need in NEEDS if need.name == name]
    (floor,) = [s.version for s in need.specifier if s.operator == ">="]
    assert Version(floor) >= Version(SAFE[name])


def test_the_hashed_requirements_are_the_pinned_ones():
    found = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", HASHED, re.M))
    assert found.items() <= PINNED.items(), "run `make constraints`"
    assert {canonicalize_name(need.name) for need in NEEDS} <= found.keys()
    assert {"markupsafe", "pylibjpeg-rle", "sympy"} <= found.keys()


def test_every_file_of_a_hashed_requirement_is_known_by_its_hash_alone():
    """And not by an address, which would be that of one registry."""
    blocks = re.split(r"\n(?! )", HASHED.strip())
    assert len(blocks) > 100
    for block in blocks:
        first, *hashes = (line.strip(" \\") for line in block.splitlines())
        assert re.fullmatch(r"[a-z0-9._-]+==[^ ]+", first)
        assert hashes
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", line) for line in hashes)
    assert "//" not in HASHED + (ROOT / "constraints.txt").read_text()
