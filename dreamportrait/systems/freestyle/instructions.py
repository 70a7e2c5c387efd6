"""What a user should know about instructions before pictures are edited: empty ones, and words without effect."""

from collections.abc import Sequence

from dreamportrait.core.errors import listed
from dreamportrait.miniworld.styles import NAMES
from dreamportrait.systems.freestyle.prompts import Instruction, Wording
from dreamportrait.text.encoder import TextEncoder, split_words


def instruct(instruction: str, wording: Wording) -> Instruction:
    """Return a whole instruction of a user, such as "turn the head into an elf", with the model's quality words."""
    if not instruction.strip():
        raise ValueError("the instruction is empty; say what to change, such as 'turn the head into an elf'")
    return Wording("{t}, {t_d}", wording.decorative, wording.negative).instruct(instruction)


def check_words(texts: Sequence[str], encoder: TextEncoder | None) -> list[str]:
    """Return notes about words that the editor does not know. Raise ValueError for a text of such words alone.

    encoder: None = the editor has a text encoder of its own, which knows all words.
    """
    notes = []
    for text in texts if encoder is not None else ():
        assert encoder is not None
        if cut := encoder.cut_note(text):
            notes.append(cut)
        unknown = encoder.unknown_words(text)
        shown = listed([repr(word) for word in unknown])
        if unknown and len(unknown) == len(split_words(text)):
            raise ValueError(
                f"the editor knows none of the words {shown}; it knows the styles {', '.join(NAMES)}, and the words "
                "for faces of the miniature world"
            )
        if unknown:
            notes.append(f"the editor does not know the words {shown} of {text[:60]!r}: they hardly change the result")
    return notes
