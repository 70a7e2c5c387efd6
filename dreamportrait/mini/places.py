"""The folders of `mini.train`, and the worlds that its stages share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dreamportrait.miniworld.edit_pool import EditPool
    from dreamportrait.miniworld.styled_world import StyledWorld
    from dreamportrait.miniworld.world import World

FACES = {"train": 40_000, "test": 2_000, "combinations": 1_000}
HEADS = {"train": 16_000, "validation": 2_000}  # styled and plain ones, from all sides
TRIPLES = {"train": 40_000, "validation": 500}  # of an editor of pictures
STATE, RESULT = "state", "result"


@dataclass(frozen=True)
class Places:
    """The folders and the device of a run."""

    work: Path
    out: Path
    device: str = "cpu"

    def state(self, stage: str) -> Path:
        return self.work / stage / STATE

    def result(self, stage: str) -> Path:
        return self.work / stage / RESULT

    def world(self, split: str) -> "World":
        from dreamportrait.miniworld.world import load

        return load(split, FACES[split], self.work / "world")

    def styled_world(self, split: str) -> "StyledWorld":
        from dreamportrait.miniworld.styled_world import load

        return load(split, HEADS[split], self.work / "styled")

    def triples(self, split: str) -> "EditPool":
        from dreamportrait.miniworld.edit_pool import load

        return load(split, TRIPLES[split], self.work / "styled")
