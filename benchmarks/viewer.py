"""Measure the browser viewer: the time from a prompt to its picture, and pictures a second while cameras move.

python -m benchmarks.viewer [--model mini] [--device cuda] [--repeats 20] [--seconds 5]

The viewer runs in a process of its own. The users are programs that speak viser's protocol and decode no pictures, so
times are those of the server and of the connection on this machine; what a browser adds is not in them. Then the views
of a head of EG3D's full size (FFHQ 512, random weights) are drawn as the viewer draws them: drafts while the camera
moves, full pictures when it rests. Writes benchmarks/results/viewer-DEVICE.json.
"""

import functools
import itertools
import math
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.options import make_parser, parse

PROMPTS = ("a man with a beard", "an old woman with glasses", "a bald man", "a woman with blond hair")
EVERY = 1 / 30  # seconds between camera moves of a user
RADIUS = 2.7


class User:
    """Speaks viser's protocol in the place of a browser."""

    def __init__(self, address: str) -> None:
        import viser
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        self.pictures: list[tuple[float, bytes]] = []  # when they came, and JPEG
        self.files: dict[str, bytes] = {}
        self.controls: dict[str, str] = {}  # label: uuid
        self.contents: dict[str, dict[str, Any]] = {}  # uuid: properties
        self.scene: list[str] = []  # types of messages about the scene
        self._parts: dict[str, tuple[str, list[bytes], int]] = {}
        self._came = threading.Condition()
        self.socket = connect(
            address.replace("http", "ws", 1),
            subprotocols=[Subprotocol(f"viser-v{viser.__version__}")],
            compression=None,
            max_size=None,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self.look(0.0)

    def close(self) -> None:
        self.socket.close()

    def send(self, kind: str, **content: Any) -> None:
        import msgspec

        self.socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def look(
        self, yaw: float, pitch: float = 0.0, width: int = 800, height: int = 600, distance: float = RADIUS
    ) -> None:
        """Move the camera, by angles in degrees."""
        a, b = math.radians(yaw), math.radians(pitch)
        position = [distance * math.sin(a) * math.cos(b), distance * math.sin(b), distance * math.cos(a) * math.cos(b)]
        still = {"wxyz": [1.0, 0.0, 0.0, 0.0], "fov": 0.3, "near": 0.01, "far": 100.0}
        place = {"position": position, "look_at": [0.0, 0.0, 0.0], "up_direction": [0.0, 1.0, 0.0]}
        self.send("ViewerCameraMessage", **still, **place, image_height=height, image_width=width)

    def set(self, label: str, value: Any) -> None:
        self.send("GuiUpdateMessage", uuid=self.controls[label], updates={"value": value})

    def generate(self, prompt: str) -> None:
        self.set("Prompt", prompt)
        self.set("Generate", True)

    def text(self) -> str:
        """Return what status and notes say."""
        texts = [str(content.get("content", "")) for content in self.contents.values()]
        return re.sub("<.*?>", "\n", "\n".join(texts)).strip()

    def wait(self, until: Callable[["User"], bool], seconds: float = 120.0) -> None:
        """Wait until a condition on this user holds. Raise TimeoutError with what the page says."""
        with self._came:
            if not self._came.wait_for(lambda: until(self), seconds):
                raise TimeoutError(f"after {seconds} seconds; the page says: {self.text()!r}")

    def _listen(self) -> None:
        import msgspec
        import zstandard
        from websockets.exceptions import ConnectionClosed

        decompress = zstandard.ZstdDecompressor().decompress
        try:
            for window in self.socket:
                assert isinstance(window, bytes)
                length = int.from_bytes(window[8:16], "little")
                messages = msgspec.msgpack.decode(decompress(window[16 : 16 + length]))["messages"]
                with self._came:
                    for message in messages:
                        self._take(message)
                    self._came.notify_all()
        except ConnectionClosed:
            pass

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "BackgroundImageMessage":
            if message["rgb_data"]:
                self.pictures.append((time.perf_counter(), message["rgb_data"]))
        elif kind == "GuiUpdateMessage":
            self.contents.setdefault(message["uuid"], {}).update(message["updates"])
        elif kind == "FileTransferStartDownload":
            self._parts[message["transfer_uuid"]] = (message["filename"], [], message["part_count"])
        elif kind == "FileTransferPart":
            name, parts, count = self._parts[message["transfer_uuid"]]
            parts.append(message["content"])
            if len(parts) == count:
                self.files[name] = b"".join(parts)
        elif kind.startswith("Gui") and "props" in message:
            self.contents[message["uuid"]] = dict(message["props"])
            if message["props"].get("label"):
                self.controls[message["props"]["label"]] = message["uuid"]
        elif "Splat" in kind or "SceneNode" in kind:
            self.scene.append(kind)


def main() -> None:
    parser = make_parser(__doc__, repeats=20)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long cameras move")
    options = parse(parser)
    from benchmarks.measure import identity, save, table

    about = identity(options.device)
    command = [sys.executable, "-u", "-m", "benchmarks.viewer_process", options.model, options.device]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = next(line.split()[1] for line in process.stdout if line.startswith("address "))
            prompts = prompt_to_picture(address, options.repeats)
            drags = [drag(address, users, options.seconds) for users in (1, 2, 4)]
        finally:
            process.terminate()
    views = full_size_views(options.device, options.repeats)
    print(table([prompts]), table(drags), table(views), sep="\n\n")
    found = {"model": options.model, "load_at_the_end": os.getloadavg()[0]}
    found |= {"prompt": prompts, "drag": drags, "full size": views}
    print("\nwrote", save("viewer", options.device, about | found))


def prompt_to_picture(address: str, repeats: int) -> dict[str, Any]:
    """Return seconds from a click on Generate to the arrival of the new picture."""
    user, taken = User(address), []
    user.wait(lambda u: "Generate" in u.controls and len(u.pictures) > 0)
    for prompt in itertools.islice(itertools.cycle(PROMPTS), repeats + 2):
        time.sleep(0.5)  # nothing is under way
        before, start = len(user.pictures), time.perf_counter()
        user.generate(prompt)
        user.wait(lambda u, before=before: len(u.pictures) > before)  # type: ignore[misc]
        taken.append(user.pictures[before][0] - start)
    user.close()
    warm = taken[2:]
    return {"repeats": repeats, "median": statistics.median(warm), "fastest": min(warm), "slowest": max(warm)}


def drag(address: str, count: int, seconds: float) -> dict[str, Any]:
    """Return pictures a second of users who all move their cameras without a pause."""
    users = [User(address) for _ in range(count)]
    for user in users:
        user.wait(lambda u: len(u.pictures) > 0)
    time.sleep(1.0)
    before, start = [len(user.pictures) for user in users], time.perf_counter()
    while (now := time.perf_counter() - start) < seconds:
        for user in users:
            user.look(25 * math.sin(2 * now), 5 * math.cos(2 * now))
        time.sleep(EVERY)
    rates = [(len(user.pictures) - first) / now for user, first in zip(users, before, strict=True)]
    for user in users:
        user.close()
    return {"users": count, "pictures a second, slowest user": min(rates), "fastest user": max(rates)}


def full_size_views(device: str, repeats: int) -> list[dict[str, Any]]:
    """Return seconds of drafts and of full pictures of a head of EG3D's full size."""
    import torch

    from benchmarks.images import inputs, our_generator
    from dreamportrait.core.timing import seconds
    from dreamportrait.eg3d.planes import Planes
    from dreamportrait.viewer import picture

    generator = our_generator(device, "float16" if device == "cuda" else "float32")
    z, camera = inputs(1, device)
    with torch.no_grad():
        w = generator.map(z, camera)
        head = Planes(generator, generator.synthesize_planes(w), w)
    rows = []
    for name, draw in (("draft", picture.draft), ("full", picture.full)):
        run = functools.partial(_to_pixels, draw, head, camera)
        run()
        taken = [seconds(run, device) for _ in range(repeats)]
        row = {"view": name, "pixels": len(run()), "median": statistics.median(taken)}
        rows.append(row | {"fastest": min(taken), "slowest": max(taken)})
    return rows


def _to_pixels(draw: Callable[..., Any], head: Any, camera: Any) -> Any:
    from dreamportrait.viewer.picture import pixels_of

    return pixels_of(draw(head, camera), "Picture", camera, (0.0, 1.0))


if __name__ == "__main__":
    main()
