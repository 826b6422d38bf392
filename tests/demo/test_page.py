"""The page in a browser: a real DICOM film is dropped, and nothing else is asked for."""

import threading
from functools import partial
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from fluoroscope.demo import story
from fluoroscope.demo.film import Examiner
from fluoroscope.demo.server import make_app
from fluoroscope.errors import InputError
from fluoroscope.prediction.predictor import load
from fluoroscope.reporting.rendering import css
from tests.support.browser import Browser
from tests.support.chromium import needs_chromium

FILM = Path(get_testdata_file("RG1_UNCR.dcm", download=False))
STATE = "document.getElementById('state').textContent"


@pytest.fixture(scope="module")
def address(trained_run):
    """Of a page that is served while the tests run."""
    predictor = load(trained_run, accelerator="cpu")
    listening = story.listen("127.0.0.1", 0)
    show = partial(story.answer, Examiner(predictor))
    style = css(story.TEMPLATES / "demo.css")
    app = make_app(story.page(predictor, 64), style, show, {"127.0.0.1"}, 64 * 2**20)
    threading.Thread(target=story.serve, args=(app, listening), daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/"


@needs_chromium
def test_a_real_dicom_film_is_read_and_shown(address, tmp_path):
    with Browser(tmp_path) as browser:
        browser.open(address)
        assert "not a medical device" in browser.run("document.body.innerText")
        browser.give("#file", FILM)
        browser.wait("document.getElementById('result') !== null")
        assert browser.run("document.activeElement.id") == "result"
        text = browser.run("document.getElementById('shown').innerText")
        assert "BLOB: probability 0." in text
        assert "units are open for this film" in text
        drawn = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
        browser.wait(drawn)
        assert browser.run("document.images.length") == 2
        assert browser.run("[...document.images].every(image => image.alt.length > 20)")
        asked = {url for url in browser.requests if not url.startswith("data:")}
        assert asked == {address + name for name in ("", "demo.css", "demo.js", "film")}
        assert browser.errors == []
        for width in (390, 1100):
            browser.show(dark=width == 390, width=width)
            assert browser.run("document.documentElement.scrollWidth") == width


@needs_chromium
def test_what_is_no_film_is_said_and_the_page_goes_on(address, tmp_path):
    note = tmp_path / "Zwerglname.txt"
    note.write_text("no film")
    with Browser(tmp_path) as browser:
        browser.open(address)
        browser.give("#file", note)
        browser.wait(f"{STATE}.startsWith('Error: the file cannot be read as a film')")
        assert "Zwerglname" not in browser.run("document.body.innerText")
        browser.run("take([new File(['a'], 'a'), new File(['b'], 'b')])")
        assert browser.run(STATE) == "Error: give one film at a time."
        browser.run("take([{size: 65 * 2 ** 20}])")
        assert browser.run(STATE) == "Error: the film is larger than 64 MiB."
        browser.give("#file", FILM)
        browser.wait("document.getElementById('result') !== null")


def test_a_port_that_is_taken_is_refused(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    for host in ("127.0.0.1", "no.such.host.invalid", "192.0.2.1", "a" * 64):
        with pytest.raises(InputError, match=f"cannot serve at host={host} port={port}"):
            story.listen(host, port)
