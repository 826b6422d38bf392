"""The page as a web application: what it accepts, and what it answers.

A film is the body of a request, so its name is never sent. It is held in memory while it is read,
one film at a time, and nothing of it is written. Only the page itself may send one: a request with
another host or origin is refused.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluoroscope.console import console_text
from fluoroscope.errors import InputError
from fluoroscope.escaping import one_line

SCRIPT = Path(__file__).parent / "templates/demo.js"
READ_S = 60.0  # within which a film must have arrived
BUSY = "another film is being read; try again in a moment"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RefusedError(Exception):
    """A request that is answered with one sentence.

    Args:
        status: of HTTP.
        sentence: for the person at the page.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def make_app(
    page: str,
    css: str,
    answer: Callable[[bytes, str | None], str],
    hosts: Collection[str],
    max_bytes: int,
) -> Starlette:
    """The application.

    Args:
        page, css: the page and its style.
        answer: content of a film and the label to explain (None: the most probable one) to the
            part of the page that shows the film; raises InputError for what cannot be read.
        hosts: names of this machine that a request may give, in lower case; empty: any name.
        max_bytes: size of the largest film.
    """
    films = Films(answer, max_bytes)
    texts = {"/": (page, "text/html"), "/demo.css": (css, "text/css")}
    texts["/demo.js"] = (SCRIPT.read_text(encoding="utf-8"), "text/javascript")
    fixed = [
        Route(path, _fixed(text, kind), methods=["GET"]) for path, (text, kind) in texts.items()
    ]
    return Starlette(
        routes=[*fixed, Route("/film", films.receive, methods=["POST"])],
        middleware=[Middleware(Guarded, hosts=hosts)],
    )


def _fixed(text: str, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response(text, media_type=kind)


class Guarded:
    """Refuse requests to other hosts, which a page of another site may cause, and add headers."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                pairs = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *pairs]
            await send(message)

        refusal = self._refusal(Request(scope).headers)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, headers: Mapping[str, str]) -> Response | None:
        host = headers.get("host", "")
        if self.hosts and _hostname(f"//{host}") not in self.hosts:
            return PlainTextResponse("this page has another address", 400)
        origin = headers.get("origin")
        if origin is not None and _place(origin) != host:
            return PlainTextResponse("only the page itself may send a film", 403)
        return None


def _place(url: str) -> str | None:
    """Host and port of a URL; None if it is malformed."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Films:
    """Films from the page, one at a time.

    Args:
        answer, max_bytes: of `make_app`.
    """

    def __init__(self, answer: Callable[[bytes, str | None], str], max_bytes: int) -> None:
        self.answer, self.max_bytes = answer, max_bytes
        self.one = threading.Lock()

    async def receive(self, request: Request) -> Response:
        """Answer one request; a refusal and an error of the program are one sentence each."""
        if not self.one.acquire(blocking=False):
            return PlainTextResponse(BUSY, 503)
        try:
            data = await asyncio.wait_for(self._read(request), READ_S)
            label = request.query_params.get("label") or None
            return HTMLResponse(await run_in_threadpool(self.answer, data, label))
        except RefusedError as refusal:
            return PlainTextResponse(str(refusal), refusal.status)
        except InputError as error:
            return PlainTextResponse(console_text(one_line(str(error))), 422)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("the film did not arrive in time; send it again", 408)
        except Exception as error:  # a film must not end the page
            print(f"a film could not be shown: {type(error).__name__}")
            return PlainTextResponse("the film could not be shown: an error of the program", 500)
        finally:
            self.one.release()

    async def _read(self, request: Request) -> bytes:
        """The body, which is never longer than allowed in memory."""
        stated = request.headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > self.max_bytes:
            raise self._too_large()
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > self.max_bytes:
                raise self._too_large()
        if not data:
            raise RefusedError(400, "the request holds no film; drop a file on the page")
        return bytes(data)

    def _too_large(self) -> RefusedError:
        limit = self.max_bytes // 2**20
        return RefusedError(
            413, f"the film is larger than {limit} MiB; start the page with a larger max_mib"
        )
