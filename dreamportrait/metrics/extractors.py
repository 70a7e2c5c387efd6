"""Extractors compute the features whose distributions are compared; the judge scores how well texts fit pictures.

Names of extractors:

inception        the standard network, from PyTorch's cache; the only one whose distance is called FID
inception:FILE   the same network, from a file
clip:SOURCE      the image tower of a CLIP, named as in text/loading.py
mini-clip        short for clip:mini/clip-b
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dreamportrait.core.errors import WeightsError
from dreamportrait.data.names import is_world
from dreamportrait.metrics.inception import load_inception, locate_inception
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.loading import load_clip
from dreamportrait.weights.hashing import weights_hash

MINI_CLIP = "mini/clip-b"
KNOWN = "inception, inception:FILE, mini-clip or clip:SOURCE"


class Extractor(Protocol):
    name: str  # of the distance: "FID" for the standard network, "FID(...)" for any other
    weights: str  # SHA-256

    def features(self, images: Tensor) -> Tensor: ...  # [N, 3, R, R] in -1 .. 1 -> [N, C]


@dataclass(frozen=True)
class Judge:
    """A CLIP that scores how well texts fit pictures, with its source and hash."""

    scorer: ClipScorer
    source: str
    weights: str  # SHA-256


class ClipExtractor:
    """An extractor that uses the image tower of a CLIP. Its features are unit vectors."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.name = "FID(mini-clip)" if judge.source == MINI_CLIP else f"FID(clip {judge.source.partition(':')[0]})"
        self.weights = judge.weights

    def features(self, images: Tensor) -> Tensor:
        return self.judge.scorer.image_features(images)


def load_judge(source: str, offline: bool = False, device: torch.device | str = "cpu") -> Judge:
    model, tokenizer = load_clip(source, offline, device)
    return Judge(ClipScorer(model, tokenizer), source, weights_hash(model))


def load_extractor(source: str, judge: Judge, offline: bool = False, device: torch.device | str = "cpu") -> Extractor:
    """Load an extractor. If it uses the same CLIP as the judge, that CLIP is not loaded again."""
    kind, name = check_extractor(source)
    if kind == "inception":
        return load_inception(Path(name) if name else None, device)
    return ClipExtractor(judge if judge.source == name else load_judge(name, offline, device))


def check_extractor(source: str) -> tuple[str, str]:
    """Return the kind of an extractor ("inception" or "clip"), and its file or CLIP.

    Raise WeightsError if the name is invalid or the file of Inception is missing. A CLIP's weights are not checked.
    """
    kind, _, name = ("clip", "", MINI_CLIP) if source == "mini-clip" else source.partition(":")
    if kind not in ("inception", "clip") or (kind == "clip" and not name):
        raise WeightsError(f"extractor {source!r}: must be {KNOWN}")
    if kind == "inception":
        locate_inception(Path(name) if name else None)
    return kind, name


JUDGE = "ViT-B-32:openai"  # the CLIP that R-Precision was introduced with


def default_judge(source: str) -> str:
    return MINI_CLIP if is_world(source) else JUDGE


def default_extractor(source: str) -> str:
    return "mini-clip" if is_world(source) else "inception"
