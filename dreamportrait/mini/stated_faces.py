"""Faces that show exactly what captions state, and their scores: the yardstick of ideal.py."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.frechet import Moments, frechet_distance
from dreamportrait.metrics.r_precision import r_precision
from dreamportrait.mini.eg3d.evaluation import front
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.attributes import Attributes, read_code, sample_codes, settle
from dreamportrait.miniworld.captions import agrees
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.world import RESOLUTION, load
from dreamportrait.text.clip_scorer import ClipScorer

SEED = 4  # for the random faces; no split of the world uses it
_POOL = 4096  # number of random faces; they are used again after the last

Facts = Callable[[int], Attributes]  # number of a caption -> the attributes it states
Face = tuple[Attributes, np.ndarray]  # attributes and traits


def obeying(facts: Facts, cameras: Tensor) -> Tensor:  # [N, 25] -> images [N, 3, R, R] in -1 .. 1
    """Render one face per camera; face i shows the facts of caption i."""
    faces = _faces()
    drawn = [render(*_changed(faces, facts(i)), camera.numpy(), RESOLUTION) for i, camera in enumerate(cameras)]
    return from_bytes(torch.stack([torch.from_numpy(picture.image) for picture in drawn])).permute(0, 3, 1, 2)


def _faces() -> Iterator[Face]:
    """Yield random faces without end."""
    while True:
        yield from map(read_code, sample_codes(_POOL, SEED))


def _changed(faces: Iterator[Face], said: Attributes) -> Face:
    """Return the next face that can show the stated attributes, changed to show them.

    Faces that cannot show them are skipped: a woman cannot have a beard.
    """
    changed = ((settle(face | said), traits) for face, traits in faces)
    return next(found for found in changed if agrees(found[0], said))


@torch.no_grad()
def scores(count: int) -> list[list[str]]:
    """Return the rows of the table: name and value of each score."""
    world = load("test", count)
    judge = ClipScorer(*from_pretrained("mini/clip-b"))
    cameras = torch.tensor(world.cameras[:count])
    real = Moments.of(judge.image_features(from_bytes(torch.tensor(world.images[:count]))))

    def distance(facts: Facts) -> float:
        return frechet_distance(real, Moments.of(judge.image_features(obeying(facts, cameras))))

    words = judge.text_features([world.evaluation_caption(i) for i in range(count)])
    seen = judge.image_features(obeying(world.evaluation_facts, front(count)))
    found = r_precision(seen, words, min(100, count))
    return [
        [f"R-Precision, 1 of {found.candidates}", f"{100 * found.value:.1f} %"],
        ["CLIP score, front", f"{100 * float((seen * words).sum(1).mean()):.1f}"],
        ["FID(mini-clip), training captions", f"{distance(world.first_facts):.4f}"],
        ["FID(mini-clip), retrieval captions", f"{distance(world.evaluation_facts):.4f}"],
    ]
