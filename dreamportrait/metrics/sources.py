"""What a generator is compared with, and by whom, from the names that a user gives.

miniworld:test            faces of the miniature world that no training saw; also miniworld:combinations
/path/to/folder or .zip   a data set as data/folder.py describes it
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from dreamportrait.data.dataset import FolderPictures, Pictures, WorldPictures
from dreamportrait.data.folder import DataError
from dreamportrait.metrics.extractors import MINI_CLIP
from dreamportrait.metrics.oracle import Oracle

WORLD = "miniworld:"
FACES = {"test": 2000, "combinations": 1000}  # rendered at once, whatever is asked for
JUDGE = "ViT-B-32:openai"  # the CLIP that R-Precision was introduced with


def is_world(source: str) -> bool:
    return source.startswith(WORLD)


def default_judge(source: str) -> str:
    return MINI_CLIP if is_world(source) else JUDGE


def default_extractor(source: str) -> str:
    return "mini-clip" if is_world(source) else "inception"


def open_pictures(source: str, captions: Path | None = None, count: int | None = None) -> Pictures:
    """captions: a JSON list that stands for the data set's captions of both kinds. count: so many are needed."""
    check_source(source)
    given = None if captions is None else read_captions(captions)
    found: Pictures
    if is_world(source):
        split = source.removeprefix(WORLD)
        found = WorldPictures(split, max(FACES[split], count or 0))
    else:
        found = FolderPictures(source)
    return found if given is None else Recaptioned(found, given, str(captions))


def check_source(source: str) -> None:
    """That it may be one, without reading it."""
    if is_world(source):
        if (split := source.removeprefix(WORLD)) not in FACES:
            known = ", ".join(WORLD + name for name in FACES)
            raise DataError(f"data set {source}: no split {split!r}; must be one of {known}, or a folder or zip file")
    elif not Path(source).exists():
        raise DataError(
            f"data set {source} is not there; name a folder, a zip file, {WORLD}test or {WORLD}combinations"
        )


def make_oracle(pictures: Pictures, device: Any) -> Oracle | None:
    """Of what the captions of the miniature world say; nobody knows what others say."""
    if not isinstance(pictures, WorldPictures):
        return None
    from dreamportrait.mini.reading import WorldOracle  # the miniature world is optional for all other data
    from dreamportrait.weights import registry

    return WorldOracle(registry.from_pretrained("mini/oracle").to(device), pictures.evaluation_facts)


class Recaptioned:
    """Pictures with other captions, one for each."""

    def __init__(self, pictures: Pictures, captions: list[str], source: str) -> None:
        if len(captions) > len(pictures):
            raise DataError(f"{source} has {len(captions)} captions for {len(pictures)} pictures; remove some")
        self._pictures, self._captions = pictures, captions
        self.cameras = pictures.cameras[: len(captions)]
        self.resolution = pictures.resolution

    def __len__(self) -> int:
        return len(self._captions)

    def image(self, index: int) -> Tensor:
        return self._pictures.image(index)

    def captions(self, index: int) -> list[str]:
        return [self._captions[index]]

    def evaluation_caption(self, index: int) -> str:
        return self._captions[index]


def read_captions(path: Path) -> list[str]:
    """A JSON list of texts, for the first pictures of a data set in their order."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"captions {path} cannot be read: {error}") from None
    if not isinstance(values, list) or not values:
        raise DataError(f"captions {path}: must be a JSON list of texts, one for each picture")
    if wrong := [i for i, text in enumerate(values) if not isinstance(text, str) or not text.strip()]:
        raise DataError(f"captions {path}: number {wrong[0]} (from 0) is {values[wrong[0]]!r}, no text; write one")
    return values
