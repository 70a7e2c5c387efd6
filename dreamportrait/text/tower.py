"""The text tower of an open_clip model: token ids in, features of any layer out, at any length.

open_clip keeps the parts of the tower at the top of a `CLIP` and under `.text` in a `CustomTextCLIP`, and its own
forward pass requires the full context. With a causal mask no token attends to later ones, so the features of the first
L tokens do not change when the rest is left out.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask", "text_projection")


class TextTower:
    """Text tower that uses the parts of a model without copying them."""

    def __init__(self, model: nn.Module) -> None:
        parts: Any = getattr(model, "text", model)
        kind = type(parts).__name__
        if missing := [name for name in _PARTS if not hasattr(parts, name)]:
            raise TypeError(f"{kind} has no {', '.join(missing)}; give an open_clip CLIP with a text transformer")
        if parts.attn_mask is None or getattr(parts, "cls_emb", None) is not None:
            raise TypeError(f"{kind} is not causal or adds a class token; give a model whose text tower is CLIP's")
        self.parts = parts
        self.blocks: Sequence[nn.Module] = parts.transformer.resblocks
        self.context_length: int = parts.positional_embedding.shape[0]
        self.width: int = parts.positional_embedding.shape[1]
        self._pool = getattr(parts, "text_pool_type", None) or parts.pool_type
        self._eot_id = getattr(parts, "text_eos_id", None) or parts.eos_id
        if self._pool not in ("argmax", "eos"):
            raise TypeError(f"{kind} pools {self._pool!r}; only models that pool the end-of-text token will do")

    @property
    def device(self) -> torch.device:
        device: torch.device = self.parts.positional_embedding.device
        return device

    def eot(self, tokens: Tensor) -> Tensor:  # [B, L] -> [B]
        """Return the position of the end-of-text token, which has the highest id in CLIP's own vocabulary."""
        return tokens.argmax(1) if self._pool == "argmax" else (tokens == self._eot_id).int().argmax(1)

    def layers(self, tokens: Tensor, depth: int | None = None) -> list[Tensor]:  # [B, L] -> [B, L, C] each
        """Return the outputs of the embedding and of the first `depth` blocks, before the final normalisation."""
        length = tokens.shape[1]
        if length > self.context_length:
            raise ValueError(f"{length} tokens: the model reads at most {self.context_length}")
        dtype = self.parts.transformer.get_cast_dtype()
        x = self.parts.token_embedding(tokens).to(dtype) + self.parts.positional_embedding[:length].to(dtype)
        mask = self.parts.attn_mask[:length, :length]
        outs = [x]
        for block in self.blocks[:depth]:
            outs.append(block(outs[-1], attn_mask=mask))
        return outs

    def normalise(self, x: Tensor) -> Tensor:  # [..., C]
        out: Tensor = self.parts.ln_final(x)
        return out

    def project(self, x: Tensor) -> Tensor:  # features at the end of text, [B, C] -> unit vectors [B, E]
        x = self.normalise(x)
        projection = self.parts.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return F.normalize(x, dim=-1)


def at(x: Tensor, position: Tensor) -> Tensor:  # [B, L, C], [B] -> [B, C]
    return x[torch.arange(len(x), device=x.device), position]
