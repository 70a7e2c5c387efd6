"""The server of the viewer: loads nothing by itself, gives each browser a session, and frees it when it leaves.

with Viewer(pipe, port=8080) as viewer:
    print(viewer.address)
    viewer.wait()
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import viser

from dreamportrait.viewer.access import check_host
from dreamportrait.viewer.camera import front, window_fov
from dreamportrait.viewer.request import Maker, Request
from dreamportrait.viewer.session import Session, Studio
from dreamportrait.viewer.work import WorkQueue

if TYPE_CHECKING:
    from dreamportrait.eg3d.config import GeneratorConfig
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
    from dreamportrait.systems.freestyle.pipeline import StylePipeline

USERS = 16  # at once
WAITING = 16  # portraits and files; drawings are at most two a user
FIRST = Request("a woman with red hair")


class LocalServer(viser.ViserServer):
    """A viser server that never opens a tunnel to the internet.

    viser's share button does that, and every program that reaches the port could send the message of that button.
    """

    def request_share_url(self, verbose: bool = True) -> None:
        return None


class Viewer:
    """Serves the viewer from threads of its own until it is closed."""

    def __init__(
        self,
        pipe: "DreamPortraitPipeline",
        *,
        host: str = "127.0.0.1",
        port: int = 8080,  # if it is taken, the next free one; 0 = any
        styles: "Callable[[], StylePipeline] | None" = None,  # called when somebody restyles a head. None = nobody can
        provenance: bool = True,  # whether downloaded files say that they were made by AI
        users: int = USERS,
        waiting: int = WAITING,
    ) -> None:
        check_host(host, port)
        first = Maker(pipe)(FIRST)  # also loads what the first user would wait for
        self._sessions: dict[int, Session] = {}
        self._lock, self._users, self._closed = threading.Lock(), users, threading.Event()
        self._studio = Studio(
            lambda: Maker(pipe, styles),
            provenance,
            WorkQueue(waiting, "make"),
            WorkQueue(2 * users, "draw"),
            FIRST,
            first,
        )
        self._server = self._serve(host, port, first.head.generator.config)

    @property
    def address(self) -> str:
        host = self._server.get_host()
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.get_port()}"

    @property
    def users(self) -> int:
        return len(self._sessions)

    def wait(self) -> None:
        """Wait until the viewer is closed."""
        while not self._closed.wait(3600):
            pass

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            sessions, self._sessions = [*self._sessions.values()], {}
        for session in sessions:
            session.leave()
        self._studio.make.stop()
        self._studio.draw.stop()
        self._server.stop()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, host: str, port: int, config: "GeneratorConfig") -> LocalServer:
        server = LocalServer(host, port, label="DreamPortrait", verbose=False)
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        server.gui.main_panel.dock_right()
        server.scene.set_up_direction("+y")
        camera = server.initial_camera
        camera.position, camera.look_at = front(config), config.camera_pivot
        camera.up, camera.fov = (0.0, 1.0, 0.0), window_fov(1.0)
        server.on_client_connect(self._enter)
        server.on_client_disconnect(self._leave)
        return server

    def _enter(self, client: viser.ClientHandle) -> None:
        with self._lock:
            full = len(self._sessions) >= self._users
            if not full:
                self._sessions[client.client_id] = Session(client, self._studio)
        if full:
            client.gui.add_markdown(f"**The viewer is full:** {self._users} people use it. Reload the page later.")
        if client.client_id not in self._server.get_clients():  # it left in the meantime
            self._leave(client)

    def _leave(self, client: viser.ClientHandle) -> None:
        with self._lock:
            session = self._sessions.pop(client.client_id, None)
        if session:
            session.leave()
