"""Splits of the miniature world's styled heads as a source of pictures."""

from pathlib import Path

from dreamportrait.data.dataset import WorldPictures
from dreamportrait.miniworld import styled_world


class StyledPictures(WorldPictures):
    """Plain and styled heads from all sides, rendered if they are not in the cache."""

    @staticmethod
    def load(split: str, count: int, cache: Path | None) -> styled_world.StyledWorld:
        return styled_world.load(split, count, cache)
