"""Opening data sets by name, in the forms of names.py, and replacing their captions."""

import json
from pathlib import Path

from torch import Tensor

from dreamportrait.core.errors import brief
from dreamportrait.core.files import read_text
from dreamportrait.data.dataset import Pictures, WorldPictures, open_folder
from dreamportrait.data.names import FACES, STYLED, WORLD, DataError, check_source, is_styled, is_world
from dreamportrait.data.styled import StyledPictures


def open_pictures(source: str, captions: Path | None = None, count: int | None = None) -> Pictures:
    """Open a data set.

    captions: a JSON list of texts that replace both the training and the evaluation captions.
    count: the number of pictures needed.
    """
    check_source(source)
    given = None if captions is None else read_captions(captions)
    found: Pictures
    if is_world(source):
        split = source.removeprefix(WORLD)
        found = WorldPictures(split, max(FACES[split], count or 0))
    elif is_styled(source):
        split = source.removeprefix(STYLED)
        found = StyledPictures(split, max(FACES[split], count or 0))
    else:
        found = open_folder(source)
    return found if given is None else Recaptioned(found, given, str(captions))


class Recaptioned:
    """Pictures with other captions, one for each picture."""

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
    """Read a JSON list of texts for the first pictures of a data set, in their order."""
    try:
        values = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"captions {path} cannot be read: {error}") from None
    if not isinstance(values, list) or not values:
        raise DataError(f"captions {path}: must be a JSON list of texts, one for each picture")
    if wrong := [i for i, text in enumerate(values) if not isinstance(text, str) or not text.strip()]:
        found = brief(values[wrong[0]])
        raise DataError(f"captions {path}: number {wrong[0]} (from 0) is {found}, no text; write one")
    return values
