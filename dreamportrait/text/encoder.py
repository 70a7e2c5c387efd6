"""Text features that condition a generator: CLIP's penultimate text layer, as Stable Diffusion 2 uses it.

The features are the output of all blocks but the last, after the final normalisation and without projection.
"""

import logging
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from dreamportrait.text.tower import TextTower, at

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer  # type: ignore[import-untyped]

_PUNCTUATION = string.punctuation + string.whitespace
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

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words that carry no meaning, because the embedding of one of their tokens is zero.

        Small models have embeddings for the words of their training only. Punctuation is left out.
        """
        return [word for word in split_words(prompt) if not self._embedded(word)]

    def cut_note(self, prompt: str) -> str | None:
        """Return what is to be said about a prompt that is longer than the context. None = it fits."""
        return cut_note(prompt, self.tokenizer, self.tower.context_length)

    def _embedded(self, word: str) -> bool:
        table = self.tower.parts.token_embedding.weight
        rows = table[torch.tensor(self.tokenizer.encode(word), dtype=torch.long, device=table.device)]  # [T, C]
        return bool((rows != 0).any(1).all())


def split_words(prompt: str) -> list[str]:
    """Return the different words of a prompt without punctuation around them."""
    return list(dict.fromkeys(word for part in prompt.split() if (word := part.strip(_PUNCTUATION))))


def cut_note(prompt: str, tokenizer: "SimpleTokenizer", context_length: int) -> str | None:
    length, limit = len(tokenizer.encode(prompt)), context_length - 2  # start and end of text
    return None if length <= limit else f"a prompt of {length} tokens is cut to its first {limit}: {prompt[:60]!r}"


def tokenise(prompts: list[str], tokenizer: "SimpleTokenizer", context_length: int) -> Tensor:  # [B, context_length]
    """Turn prompts into tokens. A prompt that is too long is cut at the end, with a warning in the log."""
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(f"prompts={prompts!r}: give a list of at least one text")
    for prompt in prompts:
        if note := cut_note(prompt, tokenizer, context_length):
            _log.warning(note)
    tokens: Tensor = tokenizer(prompts, context_length=context_length)
    return tokens
