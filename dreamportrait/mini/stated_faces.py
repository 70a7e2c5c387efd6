"""Faces that show exactly what captions state, and their scores: the yardstick of ideal.py and ceilings.py."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from dreamportrait.data.names import FACES
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.frechet import Moments, frechet_distance
from dreamportrait.metrics.oracle import KeptScore
from dreamportrait.metrics.r_precision import r_precision
from dreamportrait.metrics.world_oracle import unchanged
from dreamportrait.mini.eg3d.evaluation import front
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, read_code, sample_codes, settle
from dreamportrait.miniworld.captions import agrees
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.world import RESOLUTION, load
from dreamportrait.text.clip_scorer import ClipScorer

SEED = 5  # for the random faces; no split of the world uses it
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
    face, traits = _able(faces, said)
    return settle(face | said), traits


def _able(faces: Iterator[Face], said: Attributes) -> Face:
    """Return the next face that can show the stated attributes, as it was before the change."""
    return next(face for face in faces if agrees(settle(face[0] | said), said))


def kept(facts: Facts, count: int) -> KeptScore | None:
    """Measure what the change leaves as it was: the highest share of unsaid attributes that a generator can keep.

    It is below 1, because some values exclude others: a man who becomes a woman loses his beard.
    """
    faces = _faces()
    rows = []
    for i in range(count):
        face, said = _able(faces, facts(i))[0], facts(i)
        rows.append(unchanged(settle(face | said), face, said))
    return KeptScore.of(torch.tensor(rows), tuple(ATTRIBUTES))


@torch.no_grad()
def scores(count: int, split: str) -> list[list[str]]:
    """Return the rows of the table: name and value of each score."""
    world = load(split, max(count, FACES[split]))
    judge = ClipScorer(*from_pretrained("mini/clip-b"))
    cameras = torch.tensor(world.cameras[:count])
    real = Moments.of(judge.image_features(from_bytes(torch.tensor(world.images[:count]))))

    def distance(facts: Facts) -> float:
        return frechet_distance(real, Moments.of(judge.image_features(obeying(facts, cameras))))

    words = judge.text_features([world.evaluation_caption(i) for i in range(count)])
    seen = judge.image_features(obeying(world.evaluation_facts, front(count)))
    found = r_precision(seen, words, min(100, count))
    same = kept(world.evaluation_facts, count)
    return [
        [f"R-Precision, 1 of {found.candidates}", f"{100 * found.value:.1f} %"],
        ["CLIP score, front", f"{100 * float((seen * words).sum(1).mean()):.1f}"],
        ["FID(mini-clip), training captions", f"{distance(world.first_facts):.4f}"],
        ["FID(mini-clip), retrieval captions", f"{distance(world.evaluation_facts):.4f}"],
        ["unsaid kept", "-" if same is None else f"{100 * same.share:.1f} %"],
    ]
