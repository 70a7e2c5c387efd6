"""The controls beside the picture: what viser shows and hands back. The session decides what they do."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Protocol

import numpy as np
import viser
from numpy import ndarray as Array

from dreamportrait.viewer.files import FORMATS
from dreamportrait.viewer.picture import KINDS
from dreamportrait.viewer.request import Request

STRONGEST = 1.5  # of the text; the pipeline's limit
PLACES = ("1", "2", "3", "4", "5", "6")  # portraits in the history
RESTYLE = 'An instruction, such as "turn the head into a gold statue". Several: separated by semicolons. Empty = none'
THUMBNAIL = 64  # pixels
_COLORS = {"error": "#c92a2a", "note": "#b35c00", "": "inherit"}


class Actions(Protocol):
    """What a session does when controls are used."""

    def generate(self) -> None: ...
    def show(self) -> None: ...
    def recall(self, place: str) -> None: ...
    def download(self, file: str) -> None: ...


class Panel:
    """The controls of one user."""

    def __init__(self, gui: viser.GuiApi, actions: Actions, request: Request, styles: bool) -> None:
        # Type checkers take viser's values for read-only, hence Any.
        with gui.add_form(None) as form:
            self._prompt: Any = gui.add_text("Prompt", request.prompt, hint="Enter makes the portrait")
            self._second: Any = gui.add_text("Mix with", "", hint="A second prompt. Empty = none")
            self._instruction: Any = gui.add_text("Restyle", "", hint=RESTYLE, visible=styles)
        button = gui.add_button("Generate")
        self._share: Any = gui.add_slider("Mix", 0.0, 1.0, 0.01, 0.5, hint="0 = the first prompt, 1 = the second")
        self._seed: Any = gui.add_number("Seed", request.seed, min=0, step=1, hint="The identity")
        self._truncation: Any = gui.add_slider(
            "Truncation", 0.0, 1.0, 0.05, 1.0, hint="Smaller is closer to the average face, before the text acts"
        )
        self._strength: Any = gui.add_slider(
            "Strength", 0.0, STRONGEST, 0.05, 1.0, hint="Of the text: 0 = the seed's own face, above 1 exaggerates"
        )
        self._status, self._notes = gui.add_html(""), gui.add_html("")
        self._bar: Any = gui.add_progress_bar(0.0, visible=False)
        with gui.add_folder("View"):
            self._kind = gui.add_dropdown("Show", [*KINDS, "Splats"])
            self._beyond = gui.add_checkbox(
                "Beyond training", False, hint="Also turn to where the model has seen no pictures"
            )
        with gui.add_folder("History"):
            self._strip = gui.add_image(np.zeros((1, len(PLACES), 3), np.uint8), format="png", visible=False)
            self._recall = gui.add_button_group("Back to", PLACES, visible=False)
        with gui.add_folder("Download"):
            self._format = gui.add_dropdown("File", list(FORMATS))
            save = gui.add_button("Download")
        form.on_submit(lambda _: actions.generate())
        button.on_click(lambda _: actions.generate())
        save.on_click(lambda _: actions.download(self._format.value))
        self._recall.on_click(lambda _: actions.recall(self._recall.value))
        for control in (self._share, self._seed, self._truncation, self._strength):
            control.on_update(_by_user(actions.generate))
        for choice in (self._kind, self._beyond):
            choice.on_update(_by_user(actions.show))

    @property
    def request(self) -> Request:
        return Request(
            self._prompt.value,
            self._second.value,
            float(self._share.value),
            int(self._seed.value),
            float(self._truncation.value),
            float(self._strength.value),
            self._instruction.value,
        )

    @request.setter
    def request(self, request: Request) -> None:
        self._prompt.value, self._second.value, self._seed.value = request.prompt, request.second, request.seed
        self._share.value, self._truncation.value = request.share, request.truncation
        self._strength.value, self._instruction.value = request.strength, request.instruction

    @property
    def kind(self) -> str:
        return self._kind.value

    @property
    def beyond(self) -> bool:
        return bool(self._beyond.value)

    def say(self, text: str, level: str = "") -> None:
        """Show one line about the last action: what is done, or why it was refused (level "error")."""
        self._status.content = _lines([text], level)

    def note(self, notes: Sequence[str]) -> None:
        """Show what the user should know about the portrait and the view."""
        self._notes.content = _lines(notes, "note")

    def progress(self, share: float | None) -> None:
        """Show how much is done. None = unknown."""
        self._bar.animated = share is None
        self._bar.value = 100.0 if share is None else 100 * share
        self._bar.visible = True

    def idle(self) -> None:
        self._bar.visible = False

    def remember(self, thumbnails: Sequence[Array]) -> None:  # [T, T, 3] each
        """Show the pictures of the last portraits in a row, above their buttons."""
        gap = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
        self._strip.image = np.concatenate([*thumbnails, *([gap] * (len(PLACES) - len(thumbnails)))], 1)
        self._strip.visible = self._recall.visible = True


def _by_user(act: Callable[[], None]) -> Callable[[Any], None]:
    """Return a callback that ignores changes which the program itself made."""
    return lambda event: act() if event.client is not None else None


def _lines(texts: Sequence[str], level: str) -> str:
    """Return HTML. The texts hold what users typed, so all of them are escaped."""
    style = f"color:{_COLORS[level]};font-size:0.85em;padding:0 0.75em 0.25em;overflow-wrap:anywhere"
    return "".join(f'<div style="{style}">{escape(text)}</div>' for text in texts if text)
