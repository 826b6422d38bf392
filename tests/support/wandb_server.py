"""A stand-in for the W&B server on this machine: real client, no network, everything it sent."""

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.wandb_store import Store

ENTITY = {"name": "local", "id": "e1"}
USER = {"id": "u1", "entity": "local", "username": "local", "teams": {"edges": []}}
PROJECT = {"id": "p1", "name": "x", "entity": ENTITY, "bucket": None}
# An artifact that is there already need not be uploaded.
SEQUENCE = {"id": "s1", "latestArtifact": {"id": "a1", "versionIndex": 0}}
ARTIFACT = {"id": "a1", "state": "COMMITTED", "digest": "d1", "artifactSequence": SEQUENCE}
FIXED: dict[str, Any] = {
    "Viewer": {"viewer": USER},
    "GetDefaultEntity": {"viewer": USER},
    "ArtifactType": {"project": None},
    "CreateArtifact": {"createArtifact": {"artifact": ARTIFACT}},
}


class WandbServer(ThreadingHTTPServer):
    """Answers just enough for a run to be made, streamed and finished, and for a project's runs and
    views to be read and saved.

    `received` holds method, path and body of every request as text, `files` the lines that were
    streamed to each file of the run, `exit_code` what the run ended with, `store` all runs by
    themselves, and the views.

    Attributes:
        trouble: what it does to everything but a GET: an HTTP status that it refuses with,
            `html` as a captive portal does, or `stall`; None is none.
        after: it answers that many calls before the trouble starts.
        refused: operations that it refuses, and nothing else.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[str] = []
        self.files: dict[str, list[str]] = {}
        self.runs: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        self.store = Store()
        self.trouble: int | str | None = None
        self.after = 0
        self.refused: set[str] = set()
        self._closed = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files.get("wandb-history.jsonl", [])]

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering, in the middle of a run if need be."""
        self._closed.set()
        self.shutdown()
        self.server_close()

    def refuses(self) -> bool:
        """Whether the trouble has come; one that stalls does it here."""
        if self.trouble is None:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.trouble == "stall":
            self._closed.wait()
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client drops its connections when it ends."""

    def stream(self, sent: dict[str, Any], run_id: str) -> None:
        self.store.stream(run_id, sent)
        for name, part in (sent.get("files") or {}).items():
            self.files.setdefault(name, []).extend(part["content"])
        if sent.get("exitcode") is not None:
            self.exit_code = sent["exitcode"]

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        if operation == "UpsertBucket":
            self.runs.append(variables)
            self.store.start(variables)
            return {"upsertBucket": {"inserted": True, "bucket": _bucket(variables)}}
        if operation == "CreateRunFiles":
            base = f"{self.url}/upload"
            files = [{"name": n, "uploadUrl": f"{base}/{n}"} for n in variables["files"]]
            answer = {"runID": variables["run"], "uploadHeaders": [], "files": files}
            return {"createRunFiles": answer}
        if operation == "RunResumeStatus":
            return {"model": PROJECT | {"bucket": self.store.resumed(variables)}}
        if "ServerFeatures" in operation:
            return {"serverInfo": {"features": []}}
        if self.store.knows(operation):
            return self.store.answer(operation, variables)
        return FIXED.get(operation, {})


def _bucket(variables: dict[str, Any]) -> dict[str, Any]:
    project = {"id": "p1", "name": variables.get("project"), "entity": ENTITY}
    return {
        "id": "b1",
        "name": variables.get("name"),
        "displayName": variables.get("displayName"),
        "description": None,
        "config": variables.get("config") or "{}",
        "sweepName": None,
        "historyLineCount": 0,
        "project": project,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def _read(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        text = body.decode(errors="replace")
        self.server.received.append(f"{self.command} {self.path}\n{self.headers}\n{text}")
        return body

    def _send(self, answer: dict[str, Any]) -> None:
        self._send_body(200, "application/json", json.dumps(answer).encode())

    def _send_body(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._read()
        self._send({})

    do_PUT = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self._read()
        if self.server.refuses():
            status = self.server.trouble if isinstance(self.server.trouble, int) else 200
            self._send_body(status, "text/html", b"<html>Welcome to the guest network</html>")
        elif self.path.endswith("/graphql"):
            call = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", call["query"])
            operation = name[1] if name else ""
            if operation in self.server.refused:
                self._send_body(404, "application/json", b"{}")
                return
            self._send({"data": self.server.answer(operation, call.get("variables") or {})})
        elif "file_stream" in self.path:
            self.server.stream(json.loads(body), self.path.split("/")[-2])
            self._send({"limits": {}})
        else:
            self._send({})
