"""The page's server: what it accepts, and that every refusal is one sentence."""

import asyncio
import socket
import threading
from contextlib import closing, suppress

import pytest
from starlette.testclient import TestClient

from fluoroscope.demo.server import BUSY, HEADERS, SCRIPT, make_app
from fluoroscope.demo.story import LOOPBACK, listen, names, serve
from fluoroscope.errors import InputError

HERE = "http://127.0.0.1:7860"
LIMIT = 2**20


def client(answer=lambda data, label: f"<p>{len(data)} {label}</p>", hosts=LOOPBACK):
    app = make_app("<p>page</p>", "p{}", answer, hosts, LIMIT)
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
    assert client(hosts=()).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "LOCALHOST:7860", "[::1]:7860", "127.0.0.1"])
def test_this_machine_has_several_names(host):
    assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["Ward-PC.clinic.test", "127.0.0.2", "127.1", "localhost", "::1"])
def test_a_page_answers_to_the_name_it_was_given_and_to_the_address_it_prints(host):
    known = {"Ward-PC.clinic.test": "127.0.0.3", "::1": "::1"}.get(host, host)
    with closing(listen(known, 0)) as listening:
        address = listening.getsockname()[0]
    own = client(hosts=names(host, address))
    for name in (host, host.upper(), address):
        shown = f"[{name}]:7860" if ":" in name else f"{name}:7860"
        assert own.get("/", headers={"host": shown}).status_code == 200
    refused(own.get("/", headers={"host": "evil.example"}), 400)


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "::"])
def test_a_page_at_all_addresses_has_no_name_of_its_own(host):
    with closing(listen(host, 0)) as listening:
        assert names(host, listening.getsockname()[0]) == set()


RAW = {
    "no protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a huge header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"Zwerg" * 2**16 + b"\r\n\r\n",
    "a wrong chunk": b"POST /film HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "a web socket": b"GET /film HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n\r\n",
}


def test_malformed_http_is_refused_and_nothing_is_printed(capfd, caplog):
    listening = listen("127.0.0.1", 0)
    app = make_app("", "", lambda data, label: "", LOOPBACK, LIMIT)
    threading.Thread(target=serve, args=(app, listening), daemon=True).start()
    for name, request in RAW.items():
        with socket.create_connection(listening.getsockname(), timeout=20) as sent:
            with suppress(ConnectionError):  # it is refused before it has all been sent
                sent.sendall(request)
            assert sent.recv(12)[9:] in (b"400", b"405"), name
    assert ("".join(capfd.readouterr()), caplog.text) == ("", "")


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
    app = make_app("", "", lambda data, label: "", LOOPBACK, LIMIT)
    answers = []

    async def never():
        await asyncio.sleep(60)

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/film", "query_string": b""}
    scope |= {"headers": [(b"host", b"127.0.0.1")], "http_version": "1.1", "scheme": "http"}
    asyncio.run(app(scope, never, send))
    assert answers[0]["status"] == 408
