"""Prompts -> what conditions a generator: features of CLIP's penultimate text layer, as Stable Diffusion 2 takes them.

All blocks but the last, then the final normalisation, no projection.
"""

import logging
from dataclasses import dataclass

import torch
from open_clip.tokenizer import SimpleTokenizer  # type: ignore[import-untyped]
from torch import Tensor, nn

from dreamportrait.text.tower import TextTower, at

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextFeatures:
    words: Tensor  # [B, L, C]
    eot: Tensor  # [B, C], of the end-of-text token: the whole prompt
    mask: Tensor  # [B, L] bool, from the start-of-text to the end-of-text token


class TextEncoder:
    """Any open_clip model with a causal text tower: ViT-H-14 or the miniature world's."""

    def __init__(self, model: nn.Module, tokenizer: SimpleTokenizer) -> None:
        self.tower = TextTower(model)
        self.tokenizer = tokenizer
        if len(self.tower.blocks) < 2:
            raise ValueError("a text tower of 1 layer has no penultimate one; give a model with 2 or more")

    @torch.no_grad()
    def encode(self, prompts: list[str], shorten: bool = False) -> TextFeatures:
        """`shorten` leaves out the padding behind the longest prompt; the other features stay the same."""
        tokens = tokenise(prompts, self.tokenizer, self.tower.context_length).to(self.tower.device)
        end = self.tower.eot(tokens)  # [B]
        if shorten:
            tokens = tokens[:, : int(end.max()) + 1]
        words = self.tower.normalise(self.tower.layers(tokens, len(self.tower.blocks) - 1)[-1])  # [B, L, C]
        mask = torch.arange(tokens.shape[1], device=end.device) <= end[:, None]
        return TextFeatures(words, at(words, end), mask)


def tokenise(prompts: list[str], tokenizer: SimpleTokenizer, context_length: int) -> Tensor:  # [B, context_length]
    """Prompts that are too long lose their end, which is logged."""
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(f"prompts={prompts!r}: give a list of at least one text")
    for prompt in prompts:
        length = len(tokenizer.encode(prompt))
        if length > context_length - 2:  # start and end of text
            _log.warning("a prompt of %d tokens is cut to its first %d: %.60r", length, context_length - 2, prompt)
    tokens: Tensor = tokenizer(prompts, context_length=context_length)
    return tokens
