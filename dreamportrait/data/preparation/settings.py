"""What a preparation is told."""

from dataclasses import dataclass

from dreamportrait.core.errors import DataError
from dreamportrait.data.preparation.tars import KINDS


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a prepared data set holds, besides its source."""

    layout: str = "folder"
    resolution: int = 512
    kind: str = "jpg"  # of the pictures in the shards: jpg, png or webp (both lossless)
    quality: int = 95  # of jpg
    per_shard: int = 1000  # pictures in a shard
    aligned: bool = False  # pictures are crops already, and their cameras are known
    largest: bool = False  # of several faces take the largest, instead of dropping the photograph
    least_side: int = 128  # pixels of the photograph that the crop must have along a side
    most_outside: float = 0.3  # share of the crop that may lie outside of the photograph
    mirror: bool = False  # add the mirror image of every training picture

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 4096:
            raise DataError(f"resolution={self.resolution}: must lie between 16 and 4096")
        if self.kind not in KINDS:
            raise DataError(f"kind={self.kind!r}: must be one of {', '.join(KINDS)}")
        if not 1 <= self.quality <= 100:
            raise DataError(f"quality={self.quality}: must lie between 1 and 100")
        if self.per_shard < 1 or self.least_side < 1 or not 0 <= self.most_outside <= 1:
            raise DataError("per_shard and least_side must be positive, most_outside a share from 0 to 1")
