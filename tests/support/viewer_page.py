"""The viewer's page in a headless Chromium, as a person sees it: controls are found by their labels.

The variable SCREENSHOTS names a folder that keeps screenshots.
"""

import io
import json
import os
import time
from pathlib import Path

import numpy as np
from chromium import Tab
from PIL import Image

PICTURE = (115, 0, 760, 650)  # its edges in a window of 1200 x 800 pixels: left, top, right, bottom


class Page:
    """The open page of the viewer."""

    def __init__(self, tab: Tab, folder: Path, edges: tuple[int, int, int, int] = PICTURE) -> None:
        self.tab, self.folder, self.edges = tab, folder, edges

    def arrive(self) -> np.ndarray:
        """Wait for controls and picture, and close viser's notice that there is no graphics card."""
        self.wait_for_text("Truncation")
        self.tab.click(*self.place("document.querySelector('.mantine-Notification-closeButton')"))
        left, top, right, bottom = self.edges
        return self.changed(np.full((bottom - top, right - left, 3), 255))

    def place(self, find: str) -> tuple[float, float]:
        """Return the middle of an element that an expression of JavaScript finds."""
        script = f"""(() => {{
            const found = {find};
            if (!found) return null;
            found.scrollIntoView({{block: "nearest"}});
            const edges = found.getBoundingClientRect();
            return [edges.x + edges.width / 2, edges.y + edges.height / 2, edges.width];
        }})()"""
        x, y, width = self.tab.wait(script)
        assert width > 0
        return x, y

    def control(self, label: str, what: str = "input:not([type=hidden])") -> tuple[float, float]:
        row = f"[...document.querySelectorAll('label')].find(each => each.innerText === {json.dumps(label)})"
        return self.place(f"{row}?.closest('.mantine-Flex-root').querySelector({json.dumps(what)})")

    def type(self, label: str, text: str) -> None:
        self.tab.click(*self.control(label))
        self.tab.type(text)

    def press(self, button: str) -> None:
        self.tab.click(*self.place(_with_text("button", button)))

    def choose(self, label: str, option: str) -> None:
        self.tab.click(*self.control(label))
        self.tab.click(*self.place(_with_text("[role=option]", option)))

    def slide(self, label: str, pixels: float) -> None:
        x, y = self.control(label, "[role=slider]")
        self.tab.drag((x, y), (x + pixels, y))

    def wait_for_text(self, text: str) -> None:
        self.tab.wait(f"(document.body?.innerText ?? '').includes({json.dumps(text)})")

    def picture(self) -> np.ndarray:
        shot = self.tab.screenshot(self.folder / "screenshot.png")
        with Image.open(io.BytesIO(shot.read_bytes())) as whole:
            return np.asarray(whole.convert("RGB").crop(self.edges)).astype(int)

    def changed(self, before: np.ndarray, seconds: float = 60.0) -> np.ndarray:
        """Wait until the picture differs from `before` and stands still; return it."""
        end, last = time.monotonic() + seconds, before
        while time.monotonic() < end:
            time.sleep(0.5)
            now = self.picture()
            if distance(now, before) > 3 and distance(now, last) < 0.1:
                return now
            last = now
        raise TimeoutError(f"the picture stays; the page says {self.tab.text()!r}")

    def keep(self, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.tab.screenshot(Path(folder) / f"{name}.png")


def _with_text(kind: str, text: str) -> str:
    everything = f"[...document.querySelectorAll({json.dumps(kind)})]"
    return f"{everything}.find(each => each.innerText.trim() === {json.dumps(text)})"


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean difference in levels."""
    return float(np.abs(a - b).mean())
