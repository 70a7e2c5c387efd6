"""The judges of styled heads by name. They trained nothing; the losses of training never see them.

mini/style-oracle     reads style, attributes and yaw in pictures of the miniature world
mini/clip-t           compares such pictures with texts; other CLIPs are named as everywhere, see text/loading.py
none                  no such judge
"""

from typing import NamedTuple

import torch

from dreamportrait.core.errors import WeightsError
from dreamportrait.metrics.extractors import load_judge
from dreamportrait.miniworld.grammar import an
from dreamportrait.miniworld.styles import STYLES, Style
from dreamportrait.systems.freestyle.evaluation import Reader
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.weights.registry import locate

ORACLE, CLIP, NONE = "mini/style-oracle", "mini/clip-t", "none"


class Judges(NamedTuple):
    reader: Reader | None
    scorer: ClipScorer | None


def load_judges(oracle: str, clip: str, offline: bool = False, device: torch.device | str = "cpu") -> Judges:
    if oracle not in (ORACLE, NONE):
        raise WeightsError(f"oracle {oracle!r}: must be {ORACLE} or {NONE}")
    return Judges(
        reader=None if oracle == NONE else _load_oracle(device),
        scorer=None if clip == NONE else load_judge(clip, offline, device).scorer,
    )


def _load_oracle(device: torch.device | str) -> Reader:
    from dreamportrait.metrics import style_oracle

    reader: Reader = style_oracle.load(locate(ORACLE)).to(device)
    return reader


def known_style(words: str) -> Style | None:
    """Return the style of the miniature world that words name: "a gold statue", "golden statue". None = another one."""
    plain = " ".join(words.casefold().split())
    for style in STYLES:
        if plain in {each for phrase in (style.name, *style.phrases) for each in (phrase, an(phrase))}:
            return style
    return None
