"""The two CLIPs of the miniature world as open_clip models, and their weights on disk.

    OUT/config.json        sizes, how it was trained, scores
    OUT/model.safetensors  matrices in half precision; of the word embedding only the rows of the captions' vocabulary

Words outside that vocabulary are zero vectors, as they are in 2 % of the places in training: they say nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from open_clip.model import CLIP  # type: ignore[import-untyped]
from open_clip.tokenizer import SimpleTokenizer  # type: ignore[import-untyped]
from torch import Tensor

from dreamportrait.mini import weight_files
from dreamportrait.mini.captions import vocabulary
from dreamportrait.weights.errors import WeightsError
from dreamportrait.weights.schema import from_dict
from dreamportrait.weights.store import check_tensors

IMAGE_SIZE = 64
CONTEXT_LENGTH = 77
VOCABULARY_SIZE = 49408  # of CLIP's tokenizer
_EMBEDDING, _IDS = "token_embedding.weight", "token_embedding.ids"


@dataclass(frozen=True)
class ClipConfig:
    vision: Literal["resnet", "vit"]
    vision_width: int
    vision_layers: int  # of each of the four stages of a resnet
    patch_size: int  # of a vit
    text_width: int
    text_layers: int
    text_heads: int
    embed_dim: int

    def __post_init__(self) -> None:
        if self.text_layers < 2:
            raise ValueError(f"text_layers={self.text_layers}: must be at least 2, as the penultimate one conditions")


CONFIGS = {
    "a": ClipConfig("resnet", 16, 1, 0, text_width=96, text_layers=3, text_heads=4, embed_dim=128),
    "b": ClipConfig("vit", 128, 4, 16, text_width=96, text_layers=2, text_heads=4, embed_dim=128),
}


@cache
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


@cache
def token_ids() -> tuple[int, ...]:
    """All that captions can hold, ascending; the last one is the end of text."""
    words = {token for word in vocabulary() for token in tokenizer().encode(word)}
    return tuple(sorted({*words, tokenizer().sot_token_id, tokenizer().eot_token_id}))


def build(config: ClipConfig, vocabulary_size: int = VOCABULARY_SIZE) -> CLIP:
    """With random weights. Images go in as they are, from -1 to 1."""
    resnet = config.vision == "resnet"
    vision = {
        "image_size": IMAGE_SIZE,
        "width": config.vision_width,
        "layers": [config.vision_layers] * 4 if resnet else config.vision_layers,
        "head_width": config.vision_width * 4 if resnet else 32,  # 8 heads pool a resnet
        "patch_size": config.patch_size,
        "pool_type": "avg",
    }
    text = {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": vocabulary_size,
        "width": config.text_width,
        "layers": config.text_layers,
        "heads": config.text_heads,
    }
    model = CLIP(config.embed_dim, vision, text)
    model.visual.image_mean = model.visual.image_std = (0.5, 0.5, 0.5)  # of images from 0 to 1
    return model


# Disk.


def save(
    tensors: Mapping[str, Tensor],  # of a CLIP whose embedding has a row for each of token_ids(), others behind them
    config: ClipConfig,
    folder: Path,
    notes: Mapping[str, Any],  # goes into config.json
) -> None:
    ids = torch.tensor(token_ids())
    rows = tensors[_EMBEDDING][: len(ids)]
    weight_files.write(folder, {**tensors, _EMBEDDING: rows, _IDS: ids}, {"model": asdict(config), **notes})


def load(folder: Path) -> CLIP:
    """In single precision, in eval mode, without gradients for its weights."""
    tensors, values = weight_files.read(folder)
    model = build(from_dict(ClipConfig, values.get("model"), f"{folder / weight_files.CONFIG}: model"))
    where = str(folder / weight_files.WEIGHTS)
    whole = _with_all_rows(tensors, model.token_embedding.weight, where)
    check_tensors(model, whole, where)
    model.load_state_dict(whole, strict=True)
    return model.eval().requires_grad_(False)


def _with_all_rows(tensors: dict[str, Tensor], embedding: Tensor, where: str) -> dict[str, Tensor]:
    """With a zero row for every token that captions do not use."""
    if missing := {_IDS, _EMBEDDING} - tensors.keys():
        raise WeightsError(f"{where} lacks {', '.join(sorted(missing))}")
    whole = dict(tensors)
    ids, rows = whole.pop(_IDS), whole[_EMBEDDING]
    if rows.shape != (len(ids), embedding.shape[1]) or ids.min() < 0 or ids.max() >= len(embedding):
        sizes = f"rows {list(rows.shape)} of tokens {list(ids.shape)}"
        raise WeightsError(f"{where}: {sizes} do not fit an embedding {list(embedding.shape)}")
    whole[_EMBEDDING] = torch.zeros_like(embedding, requires_grad=False)
    whole[_EMBEDDING][ids] = rows
    return whole
