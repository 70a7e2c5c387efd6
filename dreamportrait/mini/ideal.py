"""The scores of one who obeys to the letter: what a text-to-3D generator of the miniature world is compared with.

    python -m dreamportrait.mini.ideal --count 500

A face of its own for each caption of miniworld:test, changed in nothing but what the caption states, and drawn by the
world's own renderer. These are not the best scores there can be: a caption that names every hat says of nobody that
there is none, so that who obeys to the letter draws too many hats. That is why the distance is measured with captions
as training reads them, and not with those of retrieval.
"""

from collections.abc import Callable, Iterator

import click
import numpy as np
import torch
from torch import Tensor

from dreamportrait.core.errors import one_message
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.frechet import Moments, frechet_distance
from dreamportrait.metrics.r_precision import r_precision
from dreamportrait.metrics.report import table
from dreamportrait.mini.eg3d.evaluation import front
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.attributes import Attributes, read_code, sample_codes, settle
from dreamportrait.miniworld.captions import agrees
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.world import RESOLUTION, load
from dreamportrait.text.clip_scorer import ClipScorer

SEED = 4  # of the faces to be changed; no split of the world has it
_POOL = 4096  # of them

Facts = Callable[[int], Attributes]
Face = tuple[Attributes, np.ndarray]  # with its traits


def obeying(facts: Facts, cameras: Tensor) -> Tensor:  # [N, 25] -> images [N, 3, R, R] in -1 .. 1
    faces = _faces()
    drawn = [render(*_changed(faces, facts(i)), camera.numpy(), RESOLUTION) for i, camera in enumerate(cameras)]
    return from_bytes(torch.stack([torch.from_numpy(picture.image) for picture in drawn])).permute(0, 3, 1, 2)


def _faces() -> Iterator[Face]:
    while True:
        yield from map(read_code, sample_codes(_POOL, SEED))


def _changed(faces: Iterator[Face], said: Attributes) -> Face:
    """The next face that can be as is said with nothing else changed: no woman is given a beard."""
    changed = ((settle(face | said), traits) for face, traits in faces)
    return next(found for found in changed if agrees(found[0], said))


def scores(count: int) -> list[list[str]]:
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
        ["FID(mini-clip), captions as training reads them", f"{distance(world.first_facts):.4f}"],
        ["FID(mini-clip), captions of retrieval", f"{distance(world.evaluation_facts):.4f}"],
    ]


@click.command(help=__doc__)
@click.option("--count", type=click.IntRange(min=2), default=500, show_default=True, help="Captions.")
@torch.no_grad()
def main(count: int) -> None:
    with one_message():
        click.echo(table(["score", "obeying to the letter"], scores(count)))


if __name__ == "__main__":
    main()
