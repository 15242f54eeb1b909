"""Headless Chromium, driven over WebDriver's HTTP protocol by chromedriver."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60.0


class Browser:
    """One window.

    Parameters
    ----------
    session : its address at the driver
    """

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        """Load a page."""
        _call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What the body of a JavaScript function returns."""
        return _call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's DevTools protocol."""
        return _call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int) -> None:
        """Give the page this many CSS pixels, whatever the window may have."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme: str) -> None:
        """Prefer "light" or "dark" colours."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def complaints(self) -> list[str]:
        """Warnings and errors of the console since it was last asked."""
        return [one["message"] for one in _call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        found = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


def missing() -> str:
    """What is not installed; "" if all is there."""
    names = ("chromium", "chromedriver")
    return ", ".join(name for name in names if not shutil.which(name))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A window that is closed afterwards; its profile is below the folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    driver = subprocess.Popen(["chromedriver", f"--port={port}", "--silent"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(address):
            assert driver.poll() is None and time.monotonic() < deadline, "chromedriver does not start"
            time.sleep(0.05)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        options = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        found = _call("POST", f"{address}/session", {"capabilities": {"alwaysMatch": options}})
        session = f"{address}/session/{found['sessionId']}"
        try:
            yield Browser(session)
        finally:
            _call("DELETE", session)
    finally:
        driver.terminate()
        driver.wait()


def _is_ready(address: str) -> bool:
    try:
        return bool(_call("GET", f"{address}/status")["ready"])
    except OSError:
        return False


def _call(method: str, url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
