"""Programs from npm and a browser that check exported files. Tests that need them are skipped where they are missing.

`make test-viewers` installs the packages and runs the tests. NODE_PATH names their folder node_modules.
"""

import base64
import io
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from places import ROOT


def package(name: str) -> Path:
    """Return the folder of a package of npm, or skip the test."""
    folder = Path(os.environ.get("NODE_PATH", "node_modules")) / name
    if not shutil.which("node") or not folder.is_dir():
        pytest.skip(f"no {name} from npm; `make test-viewers` installs it")
    return folder


def validated(*paths: Path) -> str:
    """Return what tools/check_glb.mjs says about GLB files. Errors and warnings fail the test."""
    folder = package("gltf-validator").parent
    command = ["node", str(ROOT / "tools" / "check_glb.mjs"), *map(str, paths)]
    done = subprocess.run(
        command, env={**os.environ, "NODE_PATH": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def drawn_by_three(glb: Path, yaw: float) -> tuple[str, Image.Image]:
    """Draw a GLB with three.js in a headless browser. Return what the page says about it, and the picture."""
    answer = _answer_of("glb_page.html", glb, f"yaw={yaw}")
    return answer["said"], _picture(answer)


def posed_by_three(glb: Path, pose: dict[str, Any], yaw: float = 0.0) -> tuple[list[list[float]], Image.Image]:
    """Pose a rigged GLB with three.js. Return where it puts the vertices, and the picture.

    pose: "weights", a number for each blend shape, "joints", a quaternion for each joint, and "time", the moment of the
    animation that is played before, all optional.
    """
    answer = _answer_of("rigged_page.html", glb, f"yaw={yaw}&pose={quote(json.dumps(pose))}")
    assert answer["said"] == "", answer["said"]
    return answer["points"], _picture(answer)


def _picture(answer: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(answer["picture"].partition(",")[2]))).convert("RGB")


def _answer_of(page_name: str, glb: Path, query: str) -> dict[str, Any]:
    """Open a page of this folder in a headless browser, and return what it sends."""
    three = package("three")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    page = Path(__file__).with_name(page_name)
    answers: queue.Queue[bytes] = queue.Queue()

    class Site(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            name = path.partition("?")[0].lstrip("/")
            known = {"index.html": page, "head.glb": glb}
            return str(known[name] if name in known else three / name.removeprefix("three/"))

        def do_POST(self) -> None:
            answers.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    options = "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _served(Site) as address:
        command = [browser, *options.split(), f"--user-data-dir={profile}", f"{address}/index.html?{query}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answer: dict[str, Any] = json.loads(answers.get(timeout=120))
        finally:
            process.terminate()
            process.wait(timeout=30)
    return answer


@contextmanager
def _served(handler: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of this machine; browsers load no modules from files. Yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
