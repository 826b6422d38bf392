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
def site(tmp_path_factory):
    """Built where every connection fails."""
    folder = tmp_path_factory.mktemp("site")
    program = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise OSError('no network')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from mkdocs.__main__ import cli\ncli()"
    )
    build = ["build", "--strict", "--quiet", "--site-dir", str(folder)]
    command = [sys.executable, "-c", program, *build]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site):
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    names = [p.with_name("index") if p.stem == "README" else p.with_suffix("") for p in pages]
    for name in (*names, "index", "data"):
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
