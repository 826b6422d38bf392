"""The page's server: what it accepts, and that every refusal is one sentence."""

import asyncio
import threading

import pytest
from starlette.testclient import TestClient

from fluoroscope.demo.server import BUSY, HEADERS, SCRIPT, make_app
from fluoroscope.errors import InputError

HERE = "http://127.0.0.1:7860"
LIMIT = 2**20


def client(answer=lambda data, label: f"<p>{len(data)} {label}</p>", host="127.0.0.1"):
    app = make_app("<p>page</p>", "p{}", answer, host, LIMIT)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


def refused(answer, status):
    """The sentence of a refusal: text, one line, no traceback, and the headers of every answer."""
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert "\n" not in answer.text
    assert "Traceback" not in answer.text
    assert all(answer.headers[name] == text for name, text in HEADERS.items())
    return answer.text


def test_the_page_its_style_and_its_script_are_served_with_headers_that_forbid_the_rest():
    for path, text in (
        ("/", "<p>page</p>"),
        ("/demo.css", "p{}"),
        ("/demo.js", SCRIPT.read_text()),
    ):
        answer = client().get(path)
        assert (answer.status_code, answer.text) == (200, text)
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_film_is_answered_with_its_part_of_the_page():
    assert client().post("/film", content=b"12345").text == "<p>5 None</p>"
    assert client().post("/film?label=Mass", content=b"1").text == "<p>1 Mass</p>"
    assert client().post("/film?label=", content=b"1").text == "<p>1 None</p>"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/film", b"", 400),
        ("POST", "/film", b"x" * (LIMIT + 1), 413),
        ("GET", "/film", None, 405),
        ("PUT", "/film", b"x", 405),
        ("POST", "/", b"x", 405),
        ("GET", "/../etc/passwd", None, 404),
        ("GET", "/film/..%2f..%2fetc/passwd", None, 404),
        ("DELETE", "/nothing", None, 404),
    ],
)
def test_malformed_requests_are_refused_in_one_sentence(method, path, content, status):
    refused(client().request(method, path, content=content), status)


def test_a_body_without_a_length_is_cut_off_where_it_becomes_too_large():
    sent = []

    def parts():
        for _ in range(100):
            sent.append(1)
            yield b"x" * 2**16

    assert "larger than 1 MiB" in refused(client().post("/film", content=parts()), 413)


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 40, "\u0663"])
def test_a_wrong_length_ends_in_no_traceback(length):
    answer = client().post("/film", content=b"x", headers={"content-length": length.encode()})
    assert answer.status_code in (200, 413)


def test_a_film_that_cannot_be_read_is_refused_with_the_reason():
    def fail(data, label):
        raise InputError("the file cannot be read\nas a film: \x1b[2J it is empty")

    text = refused(client(fail).post("/film", content=b"x"), 422)
    assert "the file cannot be read" in text
    assert "\x1b" not in text


def test_an_error_of_the_program_is_said_without_its_text(capsys):
    def fail(data, label):
        raise ValueError("Zwerglname")

    text = refused(client(fail).post("/film", content=b"x"), 500)
    printed = "".join(capsys.readouterr())
    assert "Zwerglname" not in text + printed
    assert "ValueError" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "", "[", "127.0.0.1.evil"])
def test_another_host_is_refused(host):
    """A site may let its name point to this machine; the browser then sends the site's name."""
    refused(client().get("/", headers={"host": host}), 400)
    assert client(host="0.0.0.0").get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "127.0.0.1"])
def test_this_machine_has_several_names(host):
    assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "null", "http://127.0.0.1:1", ""),
        *("http://[x", "http://[::1", "http://a]b", "http://[1.2.3.4]", "http://\xbd"),
    ],
)
def test_a_page_of_another_origin_cannot_send_a_film(origin):
    headers = {"origin": origin.encode("latin-1")}
    answer = client().post("/film", content=b"x", headers=headers)
    assert "only the page itself" in refused(answer, 403)
    assert client().post("/film", content=b"x", headers={"origin": HERE}).status_code == 200


def test_one_film_at_a_time():
    started, go_on = threading.Event(), threading.Event()

    def wait(data, label):
        started.set()
        go_on.wait(20)
        return "<p>first</p>"

    with client(wait) as page:
        first = []
        thread = threading.Thread(
            target=lambda: first.append(page.post("/film", content=b"x").text)
        )
        thread.start()
        assert started.wait(20)
        assert refused(page.post("/film", content=b"x"), 503) == BUSY
        assert page.get("/").status_code == 200
        go_on.set()
        thread.join(20)
        assert first == ["<p>first</p>"]
        assert page.post("/film", content=b"x").text == "<p>first</p>"


def test_a_film_that_does_not_arrive_is_given_up(monkeypatch):
    monkeypatch.setattr("fluoroscope.demo.server.READ_S", 0.2)
    app = make_app("", "", lambda data, label: "", "127.0.0.1", LIMIT)
    answers = []

    async def never():
        await asyncio.sleep(60)

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/film", "query_string": b""}
    scope |= {"headers": [(b"host", b"127.0.0.1")], "http_version": "1.1", "scheme": "http"}
    asyncio.run(app(scope, never, send))
    assert answers[0]["status"] == 408
