"""Faces that show exactly what captions state, and their scores: the yardstick of ideal.py and ceilings.py."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dreamportrait.data.names import FACES
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics import diversity
from dreamportrait.metrics.frechet import Moments, frechet_distance
from dreamportrait.metrics.oracle import KeptScore
from dreamportrait.metrics.r_precision import r_precision
from dreamportrait.metrics.scores import Protocol
from dreamportrait.metrics.world_oracle import unchanged
from dreamportrait.mini.eg3d.evaluation import front
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, read_code, sample_codes, settle
from dreamportrait.miniworld.captions import agrees
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.world import RESOLUTION, World, load
from dreamportrait.text.clip_scorer import ClipScorer

SEED = 5  # for the random faces; no split of the world uses it
_POOL = 4096  # number of random faces; they are used again after the last
WORN = ("hat", "eyewear", "facial_hair")  # Retrieval captions name these where they are, so silence means absence.
SHARES = (0.0, 0.5, 0.8, 1.0)  # of those that are not named and are taken off
PROMPTS, PER_PROMPT = Protocol.prompts_for_diversity, Protocol.per_prompt  # as in `dreamportrait evaluate`

Facts = Callable[[int], Attributes]  # number of a caption -> the attributes it states
Face = tuple[Attributes, np.ndarray]  # attributes and traits


def obeying(facts: Facts, cameras: Tensor, bare: float = 0.0) -> Tensor:  # [N, 25] -> [N, 3, R, R] in -1 .. 1
    """Render one face per camera; face i shows the facts of caption i.

    bare: share of the unnamed hats, glasses and beards that are taken off.
    """
    faces, taken = _faces(), _taken_off(bare)
    drawn = [
        render(*_changed(faces, said := facts(i), taken(said)), camera.numpy(), RESOLUTION)
        for i, camera in enumerate(cameras)
    ]
    return from_bytes(torch.stack([torch.from_numpy(picture.image) for picture in drawn])).permute(0, 3, 1, 2)


def _faces() -> Iterator[Face]:
    """Yield random faces without end."""
    while True:
        yield from map(read_code, sample_codes(_POOL, SEED))


def _taken_off(bare: float) -> Callable[[Attributes], Attributes]:
    """Return the function that gives what a face is to lack, given what is said."""
    draw = np.random.Generator(np.random.PCG64(SEED))
    return lambda said: {name: "none" for name in WORN if name not in said and draw.random() < bare}


def _changed(faces: Iterator[Face], said: Attributes, lacks: Attributes | None = None) -> Face:
    """Return the next face that can show the stated attributes, changed to show them, and to lack others.

    Faces that cannot show them are skipped: a woman cannot have a beard.
    """
    face, traits = _able(faces, said)
    return settle(face | (lacks or {}) | said), traits


def _able(faces: Iterator[Face], said: Attributes) -> Face:
    """Return the next face that can show the stated attributes, as it was before the change."""
    return next(face for face in faces if agrees(settle(face[0] | said), said))


def kept(facts: Facts, count: int, bare: float = 0.0) -> KeptScore | None:
    """Measure what the change leaves as it was: without `bare`, the most that a generator can keep of the unsaid.

    It is below 1, because some values exclude others: a man who becomes a woman loses his beard.
    """
    faces, taken = _faces(), _taken_off(bare)
    rows = []
    for i in range(count):
        face, said = _able(faces, facts(i))[0], facts(i)
        rows.append(unchanged(settle(face | taken(said) | said), face, said))
    return KeptScore.of(torch.tensor(rows), tuple(ATTRIBUTES))


@torch.no_grad()
def scores(count: int, split: str, shares: Sequence[float] = SHARES) -> list[list[str]]:
    """Return the rows of the table: the name of each score, and its value for each share that is taken off."""
    world = load(split, max(count, FACES[split]))
    judge = ClipScorer(*from_pretrained("mini/clip-b"))
    cameras = torch.tensor(world.cameras[:count])
    real = Moments.of(judge.image_features(from_bytes(torch.tensor(world.images[:count]))))
    words = judge.text_features([world.evaluation_caption(i) for i in range(count)])

    def distance(facts: Facts, bare: float) -> str:
        return f"{frechet_distance(real, Moments.of(judge.image_features(obeying(facts, cameras, bare)))):.4f}"

    columns, candidates = [], min(100, count)
    for bare in shares:
        seen = judge.image_features(obeying(world.evaluation_facts, front(count), bare))
        same = kept(world.evaluation_facts, count, bare)
        columns.append(
            {
                f"R-Precision, 1 of {candidates}": f"{100 * r_precision(seen, words, candidates).value:.1f} %",
                "CLIP score, front": f"{100 * float((seen * words).sum(1).mean()):.1f}",
                "FID(mini-clip), training captions": distance(world.first_facts, bare),
                "FID(mini-clip), retrieval captions": distance(world.evaluation_facts, bare),
                "unsaid kept": "-" if same is None else f"{100 * same.share:.1f} %",
                "prompt diversity": f"{_diversity(judge, world, bare):.3f}",
            }
        )
    return [[name, *(column[name] for column in columns)] for name in columns[0]]


def _diversity(judge: ClipScorer, world: World, bare: float) -> float:
    """Return how much faces of a prompt differ, as `dreamportrait evaluate` does."""
    images = obeying(lambda i: world.evaluation_facts(i // PER_PROMPT), front(PROMPTS * PER_PROMPT), bare)
    grids = [each.unflatten(0, (PROMPTS, PER_PROMPT)) for each in (judge.image_features(images), images)]
    return diversity.within(*grids).features
