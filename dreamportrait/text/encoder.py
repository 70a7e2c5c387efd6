"""Text features that condition a generator: CLIP's penultimate text layer, as Stable Diffusion 2 uses it.

The features are the output of all blocks but the last, after the final normalisation and without projection.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from dreamportrait.text.tower import TextTower, at

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer  # type: ignore[import-untyped]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextFeatures:
    """Features of B prompts, padded to L tokens."""

    words: Tensor  # [B, L, C]
    eot: Tensor  # [B, C] features of the end-of-text token, which represent the whole prompt
    mask: Tensor  # [B, L] bool: True from the start-of-text to the end-of-text token

    def to(self, device: torch.device | str) -> "TextFeatures":
        return TextFeatures(self.words.to(device), self.eot.to(device), self.mask.to(device))


class PromptEncoder(Protocol):
    """Interface of encoders that turn prompts into the text features of a generator."""

    def encode(self, prompts: list[str]) -> TextFeatures: ...


class TextEncoder:
    """Text encoder from any open_clip model with a causal text tower: ViT-H-14 or a model of the miniature world."""

    def __init__(self, model: nn.Module, tokenizer: "SimpleTokenizer") -> None:
        self.tower = TextTower(model)
        self.tokenizer = tokenizer
        if len(self.tower.blocks) < 2:
            raise ValueError("a text tower of 1 layer has no penultimate one; give a model with 2 or more")

    def to(self, device: torch.device | str) -> "TextEncoder":
        self.tower.parts.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: list[str], shorten: bool = True) -> TextFeatures:
        """Encode prompts. `shorten` drops the padding after the longest one; the other features stay the same."""
        tokens = tokenise(prompts, self.tokenizer, self.tower.context_length).to(self.tower.device)
        end = self.tower.eot(tokens)  # [B]
        if shorten:
            tokens = tokens[:, : int(end.max()) + 1]
        words = self.tower.normalise(self.tower.layers(tokens, len(self.tower.blocks) - 1)[-1])  # [B, L, C]
        mask = torch.arange(tokens.shape[1], device=end.device) <= end[:, None]
        return TextFeatures(words, at(words, end), mask)


def tokenise(prompts: list[str], tokenizer: "SimpleTokenizer", context_length: int) -> Tensor:  # [B, context_length]
    """Turn prompts into tokens. A prompt that is too long is cut at the end, with a warning in the log."""
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(f"prompts={prompts!r}: give a list of at least one text")
    for prompt in prompts:
        length = len(tokenizer.encode(prompt))
        if length > context_length - 2:  # start and end of text
            _log.warning("a prompt of %d tokens is cut to its first %d: %.60r", length, context_length - 2, prompt)
    tokens: Tensor = tokenizer(prompts, context_length=context_length)
    return tokens
