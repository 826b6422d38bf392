"""Pages as a browser shows them: measured, photographed, in light and in dark."""

import json
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--disable-dev-shm-usage"),
)
PROGRAM = next((name for name in NAMES if shutil.which(name)), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here to show the page")
# The page stands in a frame, whose width is not bound by the browser's smallest window.
MEASURED = """<!DOCTYPE html><body style="margin:0"><iframe id="frame" srcdoc="{page}"
style="border:0;width:{width}px;height:2000px"></iframe><script>
document.getElementById("frame").onload = event => {{
  const page = event.target.contentDocument
  const result = ({function})(page)
  document.body.textContent = "BEGIN" + JSON.stringify(result) + "END"
}}</script></body>"""


def measure(page: str, function: str, width: int, tmp_path: Path) -> Any:
    """What a JavaScript function of the page's document returns.

    Args:
        page: HTML.
        function: e.g. `page => page.title`.
        width: of the page, in CSS pixels.
        tmp_path: for the browser's profile.
    """
    file = tmp_path / "measured.html"
    file.write_text(MEASURED.format(page=escape(page), width=width, function=function))
    dom = _run(tmp_path, "--virtual-time-budget=4000", "--dump-dom", f"file://{file}")
    return json.loads(unescape(dom.partition("BEGIN")[2].partition("END")[0]))


def photograph(file: Path, width: int, height: int, dark: bool, tmp_path: Path) -> Path:
    """A PNG of the top of a page."""
    out = tmp_path / f"{file.stem}-{width}-{'dark' if dark else 'light'}.png"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    size = f"--window-size={width},{height}"
    _run(tmp_path, scheme, size, f"--screenshot={out}", f"file://{file}")
    return out


def _run(tmp_path: Path, *arguments: str) -> str:
    assert PROGRAM
    command = [PROGRAM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
