"""Faces of the world painted on the mesh of mini/head, and their scores. ceiling.py prints them."""

from typing import NamedTuple

import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.data.names import FACES
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.oracle import OracleScore
from dreamportrait.metrics.r_precision import RPrecision, r_precision
from dreamportrait.metrics.world_oracle import WorldOracle
from dreamportrait.mini.eg3d.evaluation import front
from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.bake import bake, fine_atlas
from dreamportrait.mini.head.basis import positions, weights_of
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld import faces as exactly
from dreamportrait.miniworld.attributes import Attributes, read_code
from dreamportrait.miniworld.heads import Shape
from dreamportrait.miniworld.world import RESOLUTION, load
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.render import reduced, render
from dreamportrait.systems.heads.skinning import shaped, to_world
from dreamportrait.text.clip_scorer import ClipScorer

Face = tuple[Attributes, Array]  # attributes and traits


class Scores(NamedTuple):
    painted: Tensor  # [N, 3, R, R] in -1 .. 1
    exact: Tensor  # [N, 3, R, R]
    precision: tuple[RPrecision, RPrecision]  # painted, exact
    shown: tuple[OracleScore, OracleScore]

    def rows(self) -> list[list[str]]:
        """Return the rows of a table: name, painted, exact."""
        first, second = self.shown
        names = [f"{name.replace('_', ' ')} shown" for name in first.by_attribute]
        return [
            [f"R-Precision, 1 of {self.precision[0].candidates}", *(_percent(found.value) for found in self.precision)],
            ["attributes said and shown", _percent(first.share), _percent(second.share)],
            *(
                [name, _percent(a), _percent(b)]
                for name, a, b in zip(names, first.by_attribute.values(), second.by_attribute.values(), strict=True)
            ),
        ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def exact(faces: list[Face]) -> Tensor:  # [N, 3, R, R] in -1 .. 1
    """Draw faces with the world's renderer from the front."""
    camera = front(1)[0].numpy()
    pictures = [torch.from_numpy(exactly.render(*face, camera, RESOLUTION).image) for face in faces]
    return from_bytes(torch.stack(pictures)).permute(0, 3, 1, 2)


def painted(model: HeadModel, faces: list[Face]) -> Tensor:  # [N, 3, R, R] in -1 .. 1
    """Draw faces with their own shapes and exact textures from the front."""
    grid = mesh.build()
    atlas, camera = fine_atlas(grid), front(1)
    mean, dirs = model.v_template.numpy(), model.shapedirs.numpy()
    drawn = []
    for attributes, traits in faces:
        shape = Shape(attributes, traits)
        beta = torch.from_numpy(weights_of(positions(shape, grid), mean, dirs)).float()[None]
        texture = torch.from_numpy(bake(attributes, traits, grid, atlas))
        background = torch.from_numpy(shape.background / 255).float()
        found = render(to_world(model, shaped(model, beta)), model, texture, camera, 2 * RESOLUTION, background)
        drawn.append(reduced(found.image))
    return torch.cat(drawn)


@torch.no_grad()
def measure(count: int, split: str) -> Scores:
    """Measure the first faces of a split against their captions."""
    world = load(split, max(count, FACES[split]))
    faces = [read_code(z) for z in world.codes[:count]]
    both = painted(from_pretrained("mini/head"), faces), exact(faces)
    judge = ClipScorer(*from_pretrained("mini/clip-b"))
    words = judge.text_features([world.evaluation_caption(i) for i in range(count)])
    oracle = WorldOracle(from_pretrained("mini/oracle"), world.evaluation_facts)
    precision = [r_precision(judge.image_features(images), words, min(100, count)) for images in both]
    shown = [OracleScore.of(oracle.judge(images, list(range(count))), oracle.names) for images in both]
    return Scores(*both, (precision[0], precision[1]), (shown[0], shown[1]))
