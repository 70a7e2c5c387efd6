"""Checks arguments that several calls of the pipeline share, before any work starts."""

from dreamportrait.systems.dreamportrait.generator import MAX_STRENGTH
from eg3d_ops._checks import check_number


def check_shares(truncation: float, strength: float) -> None:
    if not 0 <= check_number("truncation", truncation) <= 1:
        raise ValueError(f"truncation={truncation}: must be within 0 .. 1, from the average face to full variety")
    if not 0 <= check_number("strength", strength) <= MAX_STRENGTH:
        raise ValueError(
            f"strength={strength}: must be within 0 .. {MAX_STRENGTH}; 0 ignores the text, 1 is as trained, and beyond "
            f"{MAX_STRENGTH} faces fall apart"
        )
