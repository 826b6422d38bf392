"""A headless Chromium that a test drives: loads pages, gives files, runs JavaScript."""

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.support.chromium import FLAGS, PROGRAM


class Browser:
    """One page, driven by the DevTools protocol over pipes.

    Args:
        folder: for the browser's profile.
        width, height: of the page, in CSS pixels.

    Attributes:
        requests: the URLs that the page has asked for.
        errors: what the page's console has reported as errors.
    """

    def __init__(self, folder: Path, width: int = 1100, height: int = 1000) -> None:
        (read_in, self._to), (self._from, write_out) = os.pipe(), os.pipe()

        # The browser reads commands from file 3 and writes answers to file 4.
        command = [
            *("bash", "-c", f'exec "$@" 3<&{read_in} 4>&{write_out}', "bash", str(PROGRAM)),
            *(*FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"),
            *(f"--window-size={width},{height}", "about:blank"),
        ]
        given = read_in, write_out
        self._process = subprocess.Popen(command, pass_fds=given, stderr=subprocess.DEVNULL)
        os.close(read_in)
        os.close(write_out)
        self._number, self._rest, self._session = 0, b"", ""
        self.requests: list[str] = []
        self.errors: list[str] = []
        (page,) = [
            target
            for target in self.call("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        ]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **params: Any) -> Any:
        """The result of a command of the protocol."""
        self._number += 1
        sent: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            sent["sessionId"] = self._session
        os.write(self._to, json.dumps(sent).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from, 2**16)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if message["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get(
            "value"
        )

    def wait(self, script: str, seconds: float = 60) -> None:
        """Until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, script
            time.sleep(0.05)

    def give(self, selector: str, *files: Path) -> None:
        """Choose files in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def show(self, dark: bool = False, width: int | None = None) -> None:
        """Switch to the dark page or another width."""
        value = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.call("Emulation.setEmulatedMedia", features=features)
        if width is not None:
            size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", **size)

    def photograph(self, file: Path) -> Path:
        """The whole page as a PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))
        return file
