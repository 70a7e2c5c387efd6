"""What turns pictures into the features whose distribution is compared. Only one of them may be called "FID"."""

from typing import Protocol

from torch import Tensor

from dreamportrait.metrics.clip_score import ClipScorer


class Extractor(Protocol):
    name: str  # of the distance: "FID", or "FID(...)" for any other network than the standard one
    weights: str  # SHA-256

    def features(self, images: Tensor) -> Tensor: ...  # [N, 3, R, R] in -1 .. 1 -> [N, C]


class ClipExtractor:
    """The image tower of a CLIP; its features are unit vectors."""

    def __init__(self, scorer: ClipScorer, source: str, weights: str) -> None:
        self.scorer = scorer
        self.name = f"FID({'mini-clip' if source == 'mini/clip-b' else 'clip ' + source})"
        self.weights = weights

    def features(self, images: Tensor) -> Tensor:
        return self.scorer.image_features(images)
