"""Images and texts as unit vectors of a CLIP, for scores and losses."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.text.encoder import tokenise
from dreamportrait.text.tower import TextTower, at

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer  # type: ignore[import-untyped]

_BATCH = 100


class ClipScorer:
    """Features of images and texts by any open_clip model.

    Gradients flow from features to images; call it under torch.no_grad if only scores are needed.
    """

    def __init__(self, model: nn.Module, tokenizer: "SimpleTokenizer") -> None:
        if model.training:
            raise ValueError(
                "the model is in training mode, so that scores would depend on the batch; switch it to evaluation"
            )
        self.model: Any = model
        self.tokenizer = tokenizer
        self.tower = TextTower(model)
        visual: Any = model.visual
        size = visual.image_size
        self.size: int = size if isinstance(size, int) else size[0]
        if not hasattr(visual, "image_mean"):
            raise TypeError("the model has no image normalisation; set visual.image_mean and visual.image_std")
        self.mean, self.std = (
            torch.tensor(values, device=self.tower.device)[:, None, None]
            for values in (visual.image_mean, visual.image_std)
        )

    def image_features(self, images: Tensor) -> Tensor:  # [N, 3, H, W] in -1 .. 1 -> [N, C]
        """Return unit vectors of square images of any size. Other images would be distorted and are refused."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or not len(images):
            raise ValueError(f"images {list(images.shape)}: must be [N, 3, R, R] with N at least 1")
        return torch.cat([self._see(part.to(self.tower.device)) for part in images.split(_BATCH)])

    def text_features(self, prompts: list[str]) -> Tensor:  # -> [N, C]
        tokens = tokenise(prompts, self.tokenizer, self.tower.context_length).to(self.tower.device)
        return torch.cat([self._read(part) for part in tokens.split(_BATCH)])

    def similarity(self, images: Tensor, prompts: list[str]) -> Tensor:  # [N, 3, R, R], N prompts -> [N]
        """Return the cosine between each image and its own prompt."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images and {len(prompts)} prompts: give one prompt for each image")
        return (self.image_features(images) * self.text_features(prompts)).sum(1)

    def _see(self, images: Tensor) -> Tensor:
        if images.shape[2] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        inputs = ((images.clamp(-1, 1) + 1) / 2 - self.mean) / self.std
        dtype = next(self.model.visual.parameters()).dtype
        return F.normalize(self.model.encode_image(inputs.to(dtype)), dim=1)

    def _read(self, tokens: Tensor) -> Tensor:
        end = self.tower.eot(tokens)
        tokens = tokens[:, : int(end.max()) + 1]
        return self.tower.project(at(self.tower.layers(tokens)[-1], end))
