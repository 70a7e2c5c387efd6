"""The text half of a small CLIP without open_clip, whose import takes longer than generating a portrait.

Parameters have the names of open_clip's CLIP, so that TextTower accepts the module like an open_clip model.
"""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@cache
def clip_tokenizer() -> Any:
    """Return CLIP's tokenizer.

    Only open_clip's tokenizer file is imported, because its package imports transformers and torchvision.
    """
    if "open_clip" in sys.modules:
        return sys.modules["open_clip"].tokenizer.SimpleTokenizer()
    package = importlib.util.find_spec("open_clip")  # locates the package without importing it
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("dreamportrait_clip_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


class SmallTower(nn.Module):
    """Token and position embeddings, causal transformer blocks, final normalisation and projection."""

    attn_mask: Tensor
    text_pool_type = "argmax"  # the end-of-text token has the highest id
    text_eos_id = 49407

    def __init__(self, vocabulary_size: int, context_length: int, width: int, layers: int, heads: int, out: int):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context_length, width))
        self.transformer = Blocks(width, layers, heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, out))
        after = torch.full((context_length, context_length), float("-inf")).triu(1)  # no token attends to later ones
        self.register_buffer("attn_mask", after, persistent=False)


class Blocks(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def get_cast_dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class Block(nn.Module):
    """Attention and a two-layer network, each with a normalisation before it and a residual around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:  # [B, L, C], [L, L] -> [B, L, C]
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        out: Tensor = x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return out
