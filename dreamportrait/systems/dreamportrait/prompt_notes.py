"""What a user should know about prompts before looking at portraits: limits, and words that have no effect."""

import logging

from dreamportrait.core.errors import listed
from dreamportrait.text.encoder import TextEncoder, split_words

MAX_CHARACTERS = 2000  # text encoders read about 300

_log = logging.getLogger(__name__)
_EMPTY = "an empty prompt asks for nothing: its portrait is the face that the seed has without text"


def check_prompts(prompt: object) -> list[str]:
    """Return one or several texts as a list. Raise an error unless all are texts of a sensible length."""
    if isinstance(prompt, str):
        prompt = [prompt]
    if not isinstance(prompt, list | tuple) or not all(isinstance(each, str) for each in prompt):
        raise TypeError(f"prompt must be a text or a list of texts, got {prompt!r}")
    if not prompt:
        raise ValueError("prompt is an empty list; give at least one text")
    for each in prompt:
        if len(each) > MAX_CHARACTERS:
            raise ValueError(
                f"a prompt of {len(each)} characters, {each[:30]!r}...: at most {MAX_CHARACTERS} are allowed, and text "
                "encoders read about 300; shorten it"
            )
    return list(prompt)


def prompt_notes(prompt: str, encoder: TextEncoder) -> list[str]:
    """Return what is to be said about a prompt: that it is empty, cut, or has words that the model does not know."""
    notes = [] if (cut := encoder.cut_note(prompt)) is None else [cut]
    return [*notes, *_effect_notes(prompt, encoder)]


def warn_of(prompts: list[str], encoder: TextEncoder) -> None:
    """Log the notes of prompts, each once. The encoder itself warns of prompts that it cuts."""
    for note in dict.fromkeys(note for prompt in prompts for note in _effect_notes(prompt, encoder)):
        _log.warning(note)


def _effect_notes(prompt: str, encoder: TextEncoder) -> list[str]:
    if not prompt.strip():
        return [_EMPTY]
    unknown = encoder.unknown_words(prompt)
    if not unknown:
        return []
    shown = listed([repr(word) for word in unknown])
    if len(unknown) == len(split_words(prompt)):
        return [f"the model knows none of the words {shown}: the portrait is nearly the seed's face without text"]
    return [f"the model does not know the words {shown}: they hardly change the portrait of {prompt[:60]!r}"]
