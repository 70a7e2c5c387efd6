"""What a user asks for: one or two prompts, an identity, and how they act."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dreamportrait.export.portraits import Portrait

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.mixing import Mix
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline


@dataclass(frozen=True)
class Request:
    prompt: str
    second: str = ""  # mixed with the first; empty = none
    share: float = 0.5  # of the second prompt, 0 .. 1
    seed: int = 0
    truncation: float = 1.0
    strength: float = 1.0

    @property
    def prompts(self) -> list[str]:
        return [self.prompt, self.second] if self.second.strip() else [self.prompt]

    @property
    def title(self) -> str:
        """Return what names the portrait in the history: what stays the same while sliders move."""
        return f"{' + '.join(self.prompts)}, seed {self.seed}"


class Maker:
    """Makes the portraits of one user, and keeps the last mix, so that its slider needs no text encoder."""

    def __init__(self, pipe: "DreamPortraitPipeline") -> None:
        self.pipe = pipe
        self._mix: tuple[Any, Mix] | None = None

    def __call__(self, request: Request) -> Portrait:
        """Make a portrait seen from the front. Raise ValueError or TypeError for wrong requests."""
        truncation, strength = request.truncation, request.strength
        if len(request.prompts) == 1:
            return self.pipe(request.prompt, request.seed, truncation=truncation, strength=strength)
        parts = (request.prompts, request.seed, truncation, strength)
        if self._mix is None or self._mix[0] != parts:
            made = self.pipe.mix(request.prompts, request.seed, truncation=truncation, strength=strength)
            self._mix = parts, made
        return self._mix[1].blend(1 - request.share, request.share)

    def notes(self, request: Request) -> list[str]:
        """Return what is to be said about the prompts, each note once."""
        return list(dict.fromkeys(note for prompt in request.prompts for note in self.pipe.prompt_notes(prompt)))
