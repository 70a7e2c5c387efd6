"""A headless Chromium, driven by the DevTools protocol. Tests that need it are skipped where there is none."""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPTIONS = (
    "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --hide-scrollbars --mute-audio"
)


class Tab:
    """The open page. Coordinates are in pixels of the window."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.errors: list[str] = []  # uncaught errors of the page's scripts
        self.requests: list[str] = []  # addresses that the page has asked for
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(message["params"]["exceptionDetails"]))
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"not within {seconds} seconds: {script}\n{self.text()}"
            time.sleep(0.1)
        return value

    def text(self) -> str:
        return self.evaluate("document.body ? document.body.innerText : ''")

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float, count: int = 1) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self._mouse(kind, x, y, button="left", buttons=1, clickCount=count)

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 10) -> None:
        self._mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        for step in range(1, steps + 1):
            x, y = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", x, y, button="left", buttons=1)
            time.sleep(0.03)
        self._mouse("mouseReleased", *end, button="left", buttons=0, clickCount=1)

    def scroll(self, x: float, y: float, pixels: float) -> None:
        self._mouse("mouseWheel", x, y, deltaX=0, deltaY=pixels)

    def type(self, text: str) -> None:
        """Replace the text of the focused field."""
        self.evaluate("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def offline(self) -> None:
        """Cut the network off, for this page."""
        limits = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.call("Network.emulateNetworkConditions", offline=True, **limits)

    def keep_downloads(self, folder: Path) -> None:
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))


@contextmanager
def opened(folder: Path, width: int = 1200, height: int = 800) -> Iterator[Tab]:
    """Start a browser with a profile in `folder`, and end it afterwards."""
    client = pytest.importorskip("websockets.sync.client")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    command = [browser, *OPTIONS.split(), f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen([*command, "--remote-debugging-port=0", "about:blank"], stderr=log, stdout=log)
    try:
        with client.connect(_address(folder / "profile", process), max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _address(profile: Path, process: subprocess.Popen) -> str:
    """Return the address of the tab that a new browser has open."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "chromium has ended"
        written = profile / "DevToolsActivePort"
        if written.exists() and (lines := written.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                for target in json.load(answer):
                    if target["type"] == "page":
                        return target["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise TimeoutError("chromium does not answer")
