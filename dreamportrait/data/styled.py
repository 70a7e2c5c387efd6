"""Splits of the miniature world's styled heads as a source of pictures."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamportrait.miniworld import styled_world
from dreamportrait.miniworld.world import RESOLUTION


class StyledPictures:
    """Plain and styled heads from all sides, rendered if they are not in the cache."""

    def __init__(self, split: str, count: int, cache: str | None = None) -> None:
        self._asked = split, count, cache
        self._world = styled_world.load(split, count, Path(cache) if cache else None)
        self.cameras = torch.tensor(self._world.cameras)
        self.resolution = RESOLUTION

    def __len__(self) -> int:
        return len(self._world)

    def image(self, index: int) -> Tensor:
        return torch.tensor(self._world.images[index])

    def captions(self, index: int) -> list[str]:
        return self._world.captions(index)

    def evaluation_caption(self, index: int) -> str:
        return self._world.evaluation_caption(index)

    def evaluation_facts(self, index: int) -> dict[str, str]:
        """Return the attributes and values that the evaluation caption states."""
        return self._world.evaluation_facts(index)

    def __reduce__(self) -> tuple[Any, ...]:  # worker processes open the files themselves
        return StyledPictures, self._asked
