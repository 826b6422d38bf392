"""fluoroscope itself, and the versions of the packages that it needs."""

import tomllib
from importlib.metadata import PackageNotFoundError, entry_points, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fluoroscope import __version__
from fluoroscope.commands import HOME, IS_INSTALLED
from fluoroscope.doctor.check import BAD, NOTE, OK, Found
from fluoroscope.errors import plural
from fluoroscope.run.run_folder import git

SHOWN = 5
AGAIN = "pip install -c constraints.txt -e ."  # of a clone


def program() -> Found:
    if IS_INSTALLED:
        return Found(OK, f"{__version__}, installed as a package")
    commit = git("rev-parse", "--short=10", "HEAD")
    changed = " with changes" if git("status", "--porcelain") else ""
    text = f"{__version__}, a clone" + (f" at {commit}{changed}" if commit else "")
    if not entry_points(group="console_scripts", name="fluoroscope"):
        lacking = "was not installed since the command `fluoroscope` was added"
        return Found(NOTE, f"{text}, which {lacking}", f"make install, or {AGAIN}")
    return Found(OK, text)


def packages() -> Found:
    """Each package is there in a version that is allowed, and, of a clone, in the tested one."""
    wrong = [line for need in needed() if (line := _wrong(need))]
    if wrong:
        return Found(BAD, _listed(wrong), "pip install -U fluoroscope" if IS_INSTALLED else AGAIN)
    other = [f"{name} {own} (tested: {tested})" for name, own, tested in _differing()]
    if other:
        return Found(NOTE, _listed(other), f"{AGAIN} brings the tested")
    return Found(OK, plural(len(needed()), "package") + " in allowed versions")


def needed() -> list[Requirement]:
    """The packages that a run needs, without those of extras."""
    if IS_INSTALLED:
        lines = [line for line in requires("fluoroscope") or [] if "extra ==" not in line]
    else:
        project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = project["dependencies"]
    return [Requirement(line) for line in lines]


def _wrong(need: Requirement) -> str:
    own = _version(need.name)
    if own is None:
        return f"{need.name} is not installed"
    allowed = need.specifier.contains(own, prereleases=True)
    return "" if allowed else f"{need.name} {own} is not {need.specifier}"


def _differing() -> list[tuple[str, str, str]]:
    """Installed packages whose version is not that of constraints.txt."""
    file = HOME / "constraints.txt"
    lines = file.read_text().split() if file.is_file() and not IS_INSTALLED else []
    tested = dict(line.split("==") for line in lines)
    names = [canonicalize_name(need.name) for need in needed()]
    both = [(name, _version(name), tested.get(name)) for name in names]
    return [(name, own, known) for name, own, known in both if own and known and own != known]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _listed(lines: list[str]) -> str:
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
