"""Instructions of users: several in one text, and what to know before pictures are edited: words without effect."""

from collections.abc import Sequence

from dreamportrait.core.errors import listed
from dreamportrait.miniworld.styles import NAMES
from dreamportrait.systems.freestyle.prompts import Instruction, Wording
from dreamportrait.text.encoder import TextEncoder, split_words


def in_turn(text: str) -> list[str]:
    """Return the instructions of a text, which semicolons separate: "give it a beanie; turn the head into an elf"."""
    found = [" ".join(part.split()) for part in text.split(";")]
    if len(found) == 1 and not found[0]:
        raise ValueError("the instruction is empty; say what to change, such as 'turn the head into an elf'")
    if not all(found):
        raise ValueError(
            f"instruction {found.index('') + 1} of {text!r} is empty; write something on both sides of ';'"
        )
    return found


def instruct(text: str, wording: Wording) -> list[Instruction]:
    """Return the instructions of a text with the model's quality words, in the order in which they are carried out."""
    whole = Wording("{t}, {t_d}", wording.decorative, wording.negative)
    return [whole.instruct(part) for part in in_turn(text)]


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
