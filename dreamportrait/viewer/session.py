"""One user of the viewer: a portrait, a camera and a history of their own."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import viser
from numpy import ndarray as Array

from dreamportrait.eg3d.planes import trained_angles, view_notes
from dreamportrait.export.mesh import METRES
from dreamportrait.export.portraits import Portrait
from dreamportrait.export.progress import Report
from dreamportrait.export.sheets import enlarged
from dreamportrait.export.splats import Splats, make_splats
from dreamportrait.viewer import picture
from dreamportrait.viewer.camera import Pose, label_of, pose_of, window_fov, within
from dreamportrait.viewer.files import FORMATS, make_files
from dreamportrait.viewer.panel import PLACES, THUMBNAIL, Panel
from dreamportrait.viewer.request import Maker, Request
from dreamportrait.viewer.work import Busy, Check, Forgotten, WorkQueue

REST = 0.2  # seconds without a move after which the picture is drawn in full
JPEG = 90  # quality of pictures at rest; while the camera moves, 75
SPLATS = "/splats"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Studio:
    """What all users share."""

    maker: Callable[[], Maker]  # a new one for each user
    provenance: bool  # whether downloaded files say that they were made by AI
    make: WorkQueue  # portraits, meshes and files
    draw: WorkQueue  # views of portraits, which must not wait for those
    request: Request  # of the portrait that new users see
    portrait: Portrait


class Session:
    """Connects a browser, through viser's client, with the queues."""

    def __init__(self, client: viser.ClientHandle, studio: Studio) -> None:
        self._client, self._studio, self._owner = client, studio, client.client_id
        self._maker, self._portrait = studio.maker(), studio.portrait
        self._asked: Request | None = studio.request  # what is shown, or will be when the queue comes to it
        self._pose, self._aspect, self._gone = Pose(), 1.0, threading.Event()
        self._past: list[tuple[Request, Array]] = []
        self._splats: tuple[Portrait, Splats] | None = None
        self._notes: dict[str, list[str]] = {"prompt": [], "view": []}
        generator = studio.portrait.head.generator
        self._config, self._limits = generator.config, trained_angles(generator)
        self._panel = Panel(client.gui, self, studio.request, self._maker.styles is not None)
        self._present(studio.request, studio.portrait)
        client.camera.on_update(lambda _: self.move())
        self.move()

    def leave(self) -> None:
        """Drop everything that is waiting for a user who has left."""
        self._gone.set()
        self._studio.make.forget(self._owner)
        self._studio.draw.forget(self._owner)

    # ----- What the panel and the camera do ---------------------------------------------------------------

    def generate(self) -> None:
        """Make the portrait that the panel describes. A request that is still waiting is replaced."""
        request = self._panel.request
        if request != self._asked:
            self._ask(request)

    def recall(self, place: str) -> None:
        """Go back to a portrait of the history. It is made anew, which gives the same portrait."""
        if place in PLACES[: len(self._past)]:
            self._panel.request = request = self._past[PLACES.index(place)][0]
            self._ask(request)

    def download(self, file: str) -> None:
        """Make one of FORMATS and send it."""
        if end := FORMATS.get(file):
            self._submit("file", lambda check: self._send(end, check))

    def show(self) -> None:
        """Show the portrait as the panel says: as a picture, as depth or normals, or as splats."""
        if self._panel.kind == "Splats":
            self._submit("splats", self._show_splats)
        else:
            self._client.scene.remove_by_name(SPLATS)
            self._redraw(moving=False)

    def move(self) -> None:
        """Follow the browser's camera."""
        camera = self._client.camera
        self._pose = pose_of(tuple(camera.position), tuple(camera.look_at), self._config)
        aspect = max(camera.image_width, 1) / max(camera.image_height, 1)
        if aspect != self._aspect:
            self._aspect, camera.fov = aspect, window_fov(aspect)
        self._redraw(moving=True)

    # ----- In the thread that makes -----------------------------------------------------------------------

    def _ask(self, request: Request) -> None:
        self._asked = request if self._submit("portrait", lambda check: self._make(request, check)) else None

    def _submit(self, kind: str, run: Callable[[Check], None]) -> bool:
        """Add a job to the queue. Return whether it was taken."""
        try:
            before = self._studio.make.submit(self._owner, kind, lambda check: self._guard(run, check))
        except Busy as error:
            self._panel.say(str(error), "error")
            return False
        if before:
            self._panel.say(f"waiting for {before} other{'s' if before > 1 else ''}")
        return True

    def _guard(self, run: Callable[[Check], None], check: Check) -> None:
        """Run a job with the progress bar on. What is wrong with the request is said in the page."""
        self._panel.say("")
        self._panel.progress(None)
        try:
            run(check)
        except Forgotten:
            raise
        except (ValueError, TypeError, OSError) as error:
            self._panel.say(str(error), "error")
        except Exception:
            _log.exception("a request failed")
            self._panel.say("this failed; the viewer's log on the terminal says more", "error")
        finally:
            if not self._gone.is_set():
                self._panel.idle()

    def _make(self, request: Request, check: Check) -> None:
        try:
            portrait = self._maker(request)
        except Exception:
            self._asked = None  # the same request may be made again
            raise
        check()
        self._portrait = portrait
        self.show()
        self._present(request, portrait)

    def _present(self, request: Request, portrait: Portrait) -> None:
        """Show notes and history of a new portrait."""
        self._note("prompt", self._maker.notes(request))
        thumbnail = np.asarray(enlarged(portrait.pictures[0], THUMBNAIL))
        if self._past and self._past[0][0].title == request.title:
            self._past[0] = (request, thumbnail)  # a slider has moved
        else:
            others = [each for each in self._past if each[0] != request]
            self._past = [(request, thumbnail), *others][: len(PLACES)]
        self._panel.remember([small for _, small in self._past])

    def _send(self, end: str, check: Check) -> None:
        portrait, pose, report = self._portrait, self._shown_pose(), self._reporter(check)
        name = f"portrait-{'mix' if portrait.seed is None else portrait.seed}"
        made = make_files(portrait, name, end, label_of(pose, self._config), self._studio.provenance, report)
        check()
        for file, content in made:
            self._client.send_file_download(file, content, save_immediately=True)
        self._panel.say("downloaded " + " and ".join(file for file, _ in made))

    def _reporter(self, check: Check) -> Report:
        """Return a function that moves the progress bar, and ends the job of a user who has left."""

        def report(share: float) -> None:
            check()
            self._panel.progress(share)

        return report

    def _show_splats(self, check: Check) -> None:
        portrait = self._portrait
        if self._splats is None or self._splats[0] is not portrait:
            self._splats = portrait, make_splats(portrait.head, report=self._reporter(check))
        check()
        splats, plain = self._splats[1], np.full((1, 1, 3), picture.BACKGROUND, np.uint8)
        parts = (splats.positions, splats.covariances, splats.colors, splats.opacities[:, None])
        with self._client.atomic():
            self._client.scene.add_gaussian_splats(SPLATS, *parts, scale=1 / METRES)
            self._client.scene.set_background_image(plain, format="png")

    # ----- In the thread that draws -----------------------------------------------------------------------

    def _redraw(self, moving: bool) -> None:
        """Draw a draft, and the full picture after it, or when the camera rests."""
        if self._panel.kind == "Splats" or self._gone.is_set():
            return
        submit, delay = self._studio.draw.submit, REST if moving else 0.0
        submit(self._owner, "draft", lambda _: self._draw(picture.draft, None))
        submit(self._owner, "full", lambda _: self._draw(picture.full, picture.SHARP), delay)

    def _draw(self, render: Callable[..., picture.Drawing], size: int | None) -> None:
        head, kind, pose = self._portrait.head, self._panel.kind, self._shown_pose()
        if kind == "Splats":
            return
        label = label_of(pose, self._config)
        drawing = render(head, label)
        pixels = picture.pixels_of(drawing, kind, label, self._depth_range())
        size = size and max(size, len(pixels))
        shown = picture.letterboxed(pixels, self._aspect, size)
        if not self._gone.is_set():
            self._client.scene.set_background_image(shown, format="jpeg", jpeg_quality=JPEG if size else None)
            if size:
                self._note("view", self._view_notes(pose))

    def _shown_pose(self) -> Pose:
        return self._pose if self._panel.beyond else within(self._pose, *self._limits)

    def _view_notes(self, shown: Pose) -> list[str]:
        if shown != self._pose:
            yaw, pitch = self._limits
            return [
                f"the camera is at yaw {self._pose.yaw:.0f}, pitch {self._pose.pitch:.0f} degrees; pictures stop at "
                f"{yaw:.0f} and {pitch:.0f}, as far as the training went"
            ]
        return [*view_notes(self._portrait.head.generator, label_of(shown, self._config)).values()]

    def _depth_range(self) -> tuple[float, float]:
        near, far = self._portrait.depth.aminmax()
        return float(near), float(far)

    def _note(self, source: str, notes: list[str]) -> None:
        self._notes[source] = notes
        self._panel.note([note for each in self._notes.values() for note in each])
