"""Small CLIPs as open_clip models, stored with the word embeddings of a small vocabulary only.

    OUT/config.json        sizes, how it was trained, scores
    OUT/model.safetensors  matrices in half precision; the word embedding has rows for the captions' vocabulary only

Words outside that vocabulary are zero vectors and carry no meaning. The models are trained for this: 2 % of the words
are zero vectors in training too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from dreamportrait.core.errors import WeightsError
from dreamportrait.core.schema import from_dict
from dreamportrait.text.small_tower import SmallTower, clip_tokenizer
from dreamportrait.weights import single
from dreamportrait.weights.folder import check_tensors

if TYPE_CHECKING:
    from open_clip.model import CLIP  # type: ignore[import-untyped]

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
            raise ValueError(f"text_layers={self.text_layers}: must be at least 2, as the penultimate one is used")


def tokenizer() -> Any:
    """Return CLIP's tokenizer."""
    return clip_tokenizer()


def build(config: ClipConfig, vocabulary_size: int = VOCABULARY_SIZE) -> "CLIP":
    """Build a model of open_clip with random weights, for images from -1 to 1."""
    from open_clip.model import CLIP  # takes seconds to import; the text half alone does not need it

    resnet = config.vision == "resnet"
    vision = {
        "image_size": IMAGE_SIZE,
        "width": config.vision_width,
        "layers": [config.vision_layers] * 4 if resnet else config.vision_layers,
        "head_width": config.vision_width * 4 if resnet else 32,  # attention pooling of a resnet has 8 heads
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


def save(
    tensors: Mapping[str, Tensor],  # of a CLIP whose word embedding begins with the rows of `token_ids`
    token_ids: Sequence[int],  # the tokens that the captions use
    config: ClipConfig,
    folder: Path,
    notes: Mapping[str, Any],  # goes into config.json
) -> None:
    """Write a model to `folder`, with only the word embeddings of `token_ids`."""
    ids = torch.tensor(token_ids)
    rows = tensors[_EMBEDDING][: len(ids)]
    single.write(folder, {**tensors, _EMBEDDING: rows, _IDS: ids}, {"model": asdict(config), **notes})


def load(folder: Path) -> "CLIP":
    """Load a model in single precision, in eval mode, without gradients for its weights."""
    tensors, values = single.read(folder)
    model = build(from_dict(ClipConfig, values.get("model"), f"{folder / single.CONFIG}: model"))
    where = str(folder / single.WEIGHTS)
    whole = _with_all_rows(tensors, model.token_embedding.weight, where)
    check_tensors(model, whole, where)
    model.load_state_dict(whole, strict=True)
    return model.eval().requires_grad_(False)


def load_text(folder: Path) -> SmallTower:
    """Load the text half alone, in eval mode, without gradients for its weights. It does not need open_clip."""
    tensors, values = single.read(folder)
    c = from_dict(ClipConfig, values.get("model"), f"{folder / single.CONFIG}: model")
    tower = SmallTower(VOCABULARY_SIZE, CONTEXT_LENGTH, c.text_width, c.text_layers, c.text_heads, c.embed_dim)
    where = str(folder / single.WEIGHTS)
    whole = _with_all_rows(tensors, tower.token_embedding.weight, where)
    others = [name for name in whole if name.startswith("visual.") or name == "logit_scale"]
    text = {name: value for name, value in whole.items() if name not in others}
    check_tensors(tower, text, where)
    tower.load_state_dict(text, strict=True)
    return tower.eval().requires_grad_(False)


def _with_all_rows(tensors: dict[str, Tensor], embedding: Tensor, where: str) -> dict[str, Tensor]:
    """Add a zero row to the word embedding for every token that the captions do not use."""
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
