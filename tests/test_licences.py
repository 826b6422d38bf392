"""The page of licences, and what the packages that a run loads may not be under."""

import pytest
from packaging.utils import canonicalize_name

from tests import licences


def listed():
    lines = licences.PAGE.read_text().splitlines()
    rows = (line.strip("|").split("|") for line in lines if line.startswith("|"))
    return {name.strip(" *"): licence.strip() for name, licence, _ in rows}


def test_the_page_lists_every_package_of_the_project_file():
    names = {canonicalize_name(need.name) for need in licences.direct()}
    assert len(names) > 25
    assert names <= set(listed())


def test_the_page_lists_every_package_that_an_installation_brings():
    """Those of constraints.txt: other versions may need others."""
    pinned = {line.split("==")[0] for line in (licences.ROOT / "constraints.txt").open()}
    needed = set(licences.all_needed())
    assert {"torch", "markupsafe", "pylibjpeg-rle", "sympy", "optuna"} <= needed & pinned
    assert needed & pinned <= set(listed()), "run `make licences`"


def test_no_package_is_under_the_gpl():
    found = {name: licences.licence_of(name) for name in licences.all_needed()}
    for name, licence in (found | listed()).items():
        assert not licences.is_copyleft(licence), f"{name} is under {licence}"
        assert licence != "unknown", f"state the licence of {name} in tests/licences.py"


@pytest.mark.parametrize(
    ("licence", "copyleft"),
    [
        *(("GPL-3.0-or-later", True), ("GPL V3.0", True), ("AGPL-3.0-only", True)),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        *(("MIT AND GPL-2.0-only", True), ("MIT OR GPL-2.0-only", False)),
        ("GNU Lesser General Public License v2 (LGPLv2)", False),
        *(("LGPL-2.1-or-later", False), ("MIT", False), ("BSD-3-Clause AND LGPL-3.0-only", False)),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
    ],
)
def test_copyleft_is_recognised(licence, copyleft):
    assert licences.is_copyleft(licence) == copyleft


def test_the_licence_of_a_package_that_was_dropped_is_recognised(monkeypatch):
    """pylibjpeg-libjpeg, as its metadata says."""
    from email.message import Message

    about = Message()
    about["License"] = "GPL V3.0"
    about["Classifier"] = "License :: Other/Proprietary License"
    monkeypatch.setattr(licences, "metadata", lambda name: about)
    assert licences.is_copyleft(licences.licence_of("any"))
