"""The pages for a browser, the Dockerfile, the workflow and the citation."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fluoroscope

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\"\s>]+)")
STYLES = re.compile(r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?([^\"\s>]+)")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What the pages are made of, and a page that a user has added."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("docs", "data", "src/fluoroscope", "conf", "scripts"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").unlink()
    for name in (".ci", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    for file in (*ROOT.glob("*.md"), *ROOT.glob("*.yml"), ROOT / "LICENSE"):
        shutil.copy(file, folder)
    (folder / "docs/ours").mkdir()
    (folder / "docs/ours/plan.md").write_text("# Our plan\n\nSee [watch](../watch.md).\n")
    return folder


@pytest.fixture(scope="module")
def site(clone):
    """Built where every connection fails."""
    program = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise OSError('no network')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from mkdocs.__main__ import cli\ncli()"
    )
    command = [sys.executable, "-c", program, "build", "--strict", "--quiet"]
    done = subprocess.run(command, cwd=clone, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return clone / "site"


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site):
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    names = [p.with_name("index") if p.stem == "README" else p.with_suffix("") for p in pages]
    for name in (*names, "index", "data", "tutorial", "contributing", "changelog", "ours/plan"):
        text = (site / f"{name}.html").read_text()
        loaded = LOADED.findall(text) + STYLES.findall(text)
        assert loaded
        assert [place for place in loaded if re.match(r"(https?:)?//", place)] == [], name
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", styles)


def test_links_of_the_readme_lead_to_pages(site):
    text = (site / "index.html").read_text()
    assert re.search(r"href=\"?evaluate\.html", text)
    assert re.search(r"href=\"?data\.html", text)
    assert "docs/evaluate.md" not in re.findall(r"href=\"?([^\"\s>]+)", text)


def test_the_order_is_a_newcomer_s_and_holds_every_page_once(site):
    text = (site / "index.html").read_text()
    menu = re.findall(r"href=\"?([\w/]+\.html)\"? class=\"?md-nav__link", text)
    first = [name for name in dict.fromkeys(menu) if name != "index.html"]
    assert first[:2] == ["tutorial.html", "data.html"]
    assert first[-1] == "ours/plan.html"
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert {*first} == pages - {"index.html", "404.html"}
    listed = re.findall(r"- (?:\w+: )?([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert len({*listed}) == len(listed)


def test_the_notebook_is_a_page(site):
    text = (site / "tutorial.html").read_text()
    assert "<h2" in text
    assert "json" in re.sub("<[^>]*>", "", text)
    assert re.search(r"href=\"?tutorial\.html", (site / "index.html").read_text())


def test_the_dockerfile_passes_its_linter():
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run(
        [linter, ROOT / "Dockerfile"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_gets_what_it_copies():
    kept = {line.lstrip("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists()
            assert name in kept


def test_the_workflow_runs_the_tests():
    steps = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    assert steps["steps"][-1] == {"run": "make test"}


def test_the_citation_is_of_this_version():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert about["version"] == fluoroscope.__version__
    assert {"cff-version", "message", "title", "authors"} <= {*about}
    assert f"## {fluoroscope.__version__}" in (ROOT / "CHANGELOG.md").read_text()
