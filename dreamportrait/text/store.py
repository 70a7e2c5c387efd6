"""Text features of many captions on disk, so that training needs no text tower.

    OUT/config.json     the model and layer of the features, and a checksum of the captions
    OUT/captions.json   the captions, without duplicates
    OUT/words.npy       [T, C] float16: the features of all captions one after the other, unpadded
    OUT/ends.npy        [N] int64: the end of each caption in words.npy

words.npy is memory-mapped, so that only the features in use take RAM, once for all processes. Half precision keeps 11
bits of each value. The store is written to a temporary folder next to its destination and moved there when complete, so
that it is never incomplete.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy import ndarray as Array

from dreamportrait import __version__
from dreamportrait.core.errors import WeightsError, listed
from dreamportrait.core.files import new_folder, read_text
from dreamportrait.core.schema import from_dict
from dreamportrait.text.encoder import TextEncoder, TextFeatures
from dreamportrait.text.tower import at
from dreamportrait.weights.folder import read_json

FORMAT_VERSION = 1
CONFIG, CAPTIONS, WORDS, ENDS = FILES = ("config.json", "captions.json", "words.npy", "ends.npy")
_REMEDY = "encode the captions again with datasets/encode_captions.py"


@dataclass(frozen=True)
class StoreConfig:
    """Content of config.json."""

    format_version: int
    code_version: str
    clip: str  # source of the model, as load_text_encoder accepts it
    clip_sha256: str  # of the weights of its text tower
    layer: Literal["penultimate"]
    captions_sha256: str
    width: int  # channels


class TextStore:
    """Stored text features, looked up by caption or by its number."""

    def __init__(
        self,
        folder: str | Path,
        clip: str | None = None,  # required source of the model. None = any
        captions: Iterable[str] = (),  # captions that must be stored
    ) -> None:
        self.folder = Path(folder)
        path = self.folder / CONFIG
        values = read_json(path, "datasets/encode_captions.py writes such folders")
        self.config = from_dict(StoreConfig, values, str(path))
        if clip is not None and clip != self.config.clip:
            raise WeightsError(f"{folder} holds features of {self.config.clip}, not of {clip}; {_REMEDY}")
        self.captions = self._read_captions()
        self._numbers = {caption: number for number, caption in enumerate(self.captions)}
        self.indices(captions)
        self._open()

    def __len__(self) -> int:
        return len(self.captions)

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Return the stored features of these captions."""
        return self.features(self.indices(prompts))

    def indices(self, prompts: Iterable[str]) -> list[int]:
        """Return the numbers of these captions."""
        prompts = list(prompts)
        if missing := [repr(prompt) for prompt in prompts if prompt not in self._numbers]:
            raise WeightsError(
                f"{self.folder} has no features of {len(missing)} of {len(prompts)} captions: {listed(missing, 3)}; "
                f"{_REMEDY}"
            )
        return [self._numbers[prompt] for prompt in prompts]

    def features(self, indices: Sequence[int]) -> TextFeatures:
        """Return the features of these captions in single precision, padded with zeros to the longest one."""
        if not indices:
            raise ValueError("indices is empty; name at least one caption")
        if wrong := [index for index in indices if not 0 <= index < len(self)]:
            raise IndexError(f"captions {wrong} of a store of {len(self)}")
        starts = [int(self._ends[i - 1]) if i else 0 for i in indices]
        lengths = torch.tensor([int(self._ends[i]) - start for i, start in zip(indices, starts, strict=True)])
        words = torch.zeros(len(indices), int(lengths.max()), self.config.width)
        for row, start, length in zip(words, starts, lengths.tolist(), strict=True):
            row[:length] = torch.from_numpy(self._words[start : start + length].astype(np.float32))
        mask = torch.arange(words.shape[1]) < lengths[:, None]
        return TextFeatures(words, at(words, lengths - 1), mask)

    def _open(self) -> None:
        self._words, self._ends = self._map(WORDS, np.float16), self._map(ENDS, np.int64)
        total = int(self._ends[-1]) if len(self._ends) == len(self) else -1
        if self._words.shape != (total, self.config.width):
            sizes = f"{list(self._words.shape)} words, {list(self._ends.shape)} ends and {len(self)} captions"
            raise WeightsError(f"{self.folder}: {sizes} do not fit together; {_REMEDY}")

    def _map(self, name: str, dtype: type) -> Array:
        try:
            array: Array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise WeightsError(f"{self.folder / name} cannot be read: {error}; {_REMEDY}") from None
        if array.dtype != dtype:
            raise WeightsError(f"{self.folder / name} holds {array.dtype}, not {np.dtype(dtype)}; {_REMEDY}")
        return array

    def _read_captions(self) -> list[str]:
        path = self.folder / CAPTIONS
        try:
            captions = json.loads(read_text(path))
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path} cannot be read: {error}; {_REMEDY}") from None
        if not isinstance(captions, list) or _checksum(captions) != self.config.captions_sha256:
            raise WeightsError(f"{path} is not as it was written; {_REMEDY}")
        return captions

    def __getstate__(self) -> dict[str, Any]:  # pickling would copy the mapped files
        return {name: value for name, value in self.__dict__.items() if name not in ("_words", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def is_store_of(folder: Path, encoder: TextEncoder, clip: str, captions: Iterable[str]) -> bool:
    """Return whether `folder` is a complete store and write_store would write the same again."""
    try:
        config = TextStore(folder).config
    except WeightsError:
        return False
    return _key(config) == _key(_describe(encoder, clip, captions))


def write_store(
    folder: str | Path,
    encoder: TextEncoder,
    clip: str,  # source that the encoder was loaded from
    captions: Iterable[str],
    batch: int = 256,
    overwrite: bool = False,  # replace another store
    progress: Callable[[int], None] = lambda count: None,  # called with the number of newly encoded captions
) -> None:
    """Encode captions and write their features to a store."""
    captions = _distinct(captions)
    if not captions:
        raise ValueError("captions is empty; there is nothing to encode")
    lengths = np.array([_length(encoder, caption) for caption in captions])
    ends, width = np.cumsum(lengths), encoder.tower.width
    order = np.argsort(lengths, kind="stable")  # encoding captions of equal length together avoids padding
    with new_folder(folder, overwrite, FILES) as staging:
        words = np.lib.format.open_memmap(staging / WORDS, "w+", np.float16, (int(ends[-1]), width))
        for part in np.array_split(order, range(batch, len(order), batch)):
            _encode(encoder, captions, part, words, ends)
            progress(len(part))
        words.flush()
        np.save(staging / ENDS, ends.astype(np.int64))
        (staging / CAPTIONS).write_text(json.dumps(captions), encoding="utf-8")
        config = json.dumps(asdict(_describe(encoder, clip, captions)), indent=2) + "\n"
        (staging / CONFIG).write_text(config, encoding="utf-8")


def _encode(encoder: TextEncoder, captions: list[str], part: Array, words: Array, ends: Array) -> None:
    features = encoder.encode([captions[i] for i in part])
    halves = features.words.half()
    if not halves.isfinite().all():
        raise ValueError("the text encoder gave NaN or values beyond half precision; check the weights of its model")
    for i, row, mask in zip(part, halves.cpu().numpy(), features.mask.cpu().numpy(), strict=True):
        words[ends[i] - mask.sum() : ends[i]] = row[mask]


def _length(encoder: TextEncoder, caption: str) -> int:
    """Return the number of tokens, including start and end of text."""
    return min(len(encoder.tokenizer.encode(caption)) + 2, encoder.tower.context_length)


def _fingerprint(encoder: TextEncoder) -> str:
    """Return a hash of the weights that determine the features."""
    parts, digest = encoder.tower.parts, hashlib.sha256()
    tensors = {"positional_embedding": parts.positional_embedding}
    for part in ("token_embedding", "transformer", "ln_final"):
        tensors |= {f"{part}.{name}": value for name, value in getattr(parts, part).state_dict().items()}
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _distinct(captions: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(captions))


def _describe(encoder: TextEncoder, clip: str, captions: Iterable[str]) -> StoreConfig:
    return StoreConfig(
        format_version=FORMAT_VERSION,
        code_version=__version__,
        clip=clip,
        clip_sha256=_fingerprint(encoder),
        layer="penultimate",
        captions_sha256=_checksum(_distinct(captions)),
        width=encoder.tower.width,
    )


def _key(config: StoreConfig) -> tuple[str, ...]:
    """Return the settings that determine the features."""
    return config.clip, config.clip_sha256, config.layer, config.captions_sha256


def _checksum(captions: list[str]) -> str:
    return hashlib.sha256(json.dumps(captions).encode()).hexdigest()


class StoredText:
    """Encoder that reads stored captions.

    If any prompt is not stored, the text tower is loaded for that call and released afterwards. Training needs this for
    a text prior, which loads CLIP anyway, and for captions of another data set that scores are taken on.
    """

    def __init__(self, found: TextStore, load: Callable[[], TextEncoder]) -> None:
        self.store, self.load = found, load

    def encode(self, prompts: list[str]) -> TextFeatures:
        if set(prompts) <= set(self.store.captions):
            return self.store.encode(prompts)
        return self.load().encode(prompts)
