"""What a user asks for: one or two prompts, an identity, how they act, and an instruction that restyles the head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dreamportrait.export.portraits import Portrait
from dreamportrait.systems.freestyle.instructions import check_words, in_turn

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.mixing import Mix
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
    from dreamportrait.systems.freestyle.pipeline import StylePipeline


@dataclass(frozen=True)
class Request:
    prompt: str
    second: str = ""  # mixed with the first; empty = none
    share: float = 0.5  # of the second prompt, 0 .. 1
    seed: int = 0
    truncation: float = 1.0
    strength: float = 1.0
    instruction: str = ""  # "turn the head into an elf"; empty = none

    @property
    def prompts(self) -> list[str]:
        return [self.prompt, self.second] if self.second.strip() else [self.prompt]

    @property
    def title(self) -> str:
        """Return what names the portrait in the history: what stays the same while sliders move."""
        said = [" + ".join(self.prompts), f"seed {self.seed}", self.instruction.strip()]
        return ", ".join(part for part in said if part)


class Maker:
    """Makes the portraits of one user, and keeps the last mix, so that its slider needs no text encoder."""

    def __init__(self, pipe: "DreamPortraitPipeline", styles: "Callable[[], StylePipeline] | None" = None) -> None:
        self.pipe, self.styles = pipe, styles
        self._mix: tuple[Any, Mix] | None = None

    def __call__(self, request: Request) -> Portrait:
        """Make a portrait seen from the front. Raise ValueError or TypeError for wrong requests."""
        portrait = self._made(request)
        return self._restyled(portrait, request) if request.instruction.strip() else portrait

    def _made(self, request: Request) -> Portrait:
        truncation, strength = request.truncation, request.strength
        if len(request.prompts) == 1:
            return self.pipe(request.prompt, request.seed, truncation=truncation, strength=strength)
        parts = (request.prompts, request.seed, truncation, strength)
        if self._mix is None or self._mix[0] != parts:
            made = self.pipe.mix(request.prompts, request.seed, truncation=truncation, strength=strength)
            self._mix = parts, made
        return self._mix[1].blend(1 - request.share, request.share)

    def _restyled(self, portrait: Portrait, request: Request) -> Portrait:
        """Edit the picture from the front as the instruction says, and return the head of the edited picture."""
        if self.styles is None:
            raise ValueError("this viewer restyles nothing: no free-style model was given with --styles")
        head = self.styles()(portrait.pictures[0], request.instruction, request.seed)
        if head.head.generator.config != portrait.head.generator.config:
            raise ValueError("the free-style model of --styles belongs to another generator than the portraits")
        return head

    def notes(self, request: Request) -> list[str]:
        """Return what is to be said about the prompts and the instruction, each note once."""
        said = [note for prompt in request.prompts for note in self.pipe.prompt_notes(prompt)]
        if self.styles is not None and request.instruction.strip():
            said += check_words(in_turn(request.instruction), self.styles().editing.text)
        return list(dict.fromkeys(said))
