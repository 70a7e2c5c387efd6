"""Finds pictures that show the same in another size or quality: close fingerprints, confirmed by the pixels."""

import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy import ndarray as Array
from PIL import Image

NEAR = 3  # of 128 bits; what sizes and qualities change at a portrait
LEAST_RISES = 8  # bits that are set; pictures with fewer are plain, and many plain ones look alike
SIDE, SAME = 32, 4.0  # pictures shrunk to SIDE pixels are the same if they differ by less, of 255, on average


class Lookalikes:
    """The pictures so far, by their fingerprints."""

    def __init__(self) -> None:
        self._bits: Array = np.empty((1024, 2), np.uint64)
        self._reads: list[tuple[int, Callable[[], bytes]]] = []

    def add(self, number: int, fingerprint: str, picture: Image.Image, read: Callable[[], bytes]) -> Iterator[int]:
        """Add a picture, and yield the numbers of those before that show the same. read: returns its file."""
        bits = np.frombuffer(bytes.fromhex(fingerprint), np.uint64)
        if int(np.bitwise_count(bits).sum()) < LEAST_RISES:
            return
        count = len(self._reads)
        if count == len(self._bits):
            self._bits = np.concatenate([self._bits, np.empty_like(self._bits)])
        self._bits[count] = bits
        self._reads.append((number, read))
        distances = np.bitwise_count(self._bits[:count] ^ bits).sum(1)
        for i in np.flatnonzero(distances <= NEAR):
            other, content = self._reads[i]
            with Image.open(io.BytesIO(content())) as before:
                if np.abs(_small(before) - _small(picture)).mean() < SAME:
                    yield other


def _small(picture: Image.Image) -> Array:  # [SIDE, SIDE, 3]
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), float)
