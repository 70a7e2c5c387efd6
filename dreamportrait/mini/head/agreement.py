"""How well the head model shows bald, bare heads of the miniature world, compared with the exact pictures."""

import numpy as np
import torch

from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.bake import bake, fine_atlas
from dreamportrait.mini.head.basis import positions, weights_of
from dreamportrait.mini.head.build import BARE
from dreamportrait.miniworld import faces
from dreamportrait.miniworld.attributes import read_code, sample_codes
from dreamportrait.miniworld.heads import Shape
from dreamportrait.miniworld.world import random_cameras
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.render import reduced, render
from dreamportrait.systems.heads.skinning import shaped, to_world

IDENTITIES, SEED = 100, 5
SIZE = 64
COVERED = 3 / 8  # the world counts a pixel from two of its four rays on, which is at this share on average


def agreement(model: HeadModel, count: int = IDENTITIES) -> dict[str, float]:
    """Draw `count` heads, each from a random camera, with the closest weights of the model and their own textures.

    Return means over the heads of: the overlap of the silhouettes, and the absolute error of colours, of 255, in the
    whole picture.
    """
    grid, overlaps, errors = mesh.build(), [], []
    atlas = fine_atlas(grid)
    mean, dirs = model.v_template.numpy(), model.shapedirs.numpy()
    for z, camera in zip(sample_codes(count, SEED), random_cameras(count, SEED), strict=True):
        attributes, traits = read_code(z)
        attributes |= BARE
        shape = Shape(attributes, traits)
        wanted = faces.render(attributes, traits, camera, SIZE)
        beta = torch.from_numpy(weights_of(positions(shape, grid), mean, dirs)).float()[None]
        texture = torch.from_numpy(bake(attributes, traits, grid, atlas))
        label, background = torch.from_numpy(camera)[None].float(), torch.from_numpy(shape.background / 255).float()
        found = render(to_world(model, shaped(model, beta)), model, texture, label, 2 * SIZE, background)
        picture = (reduced(found.image)[0].permute(1, 2, 0).numpy() + 1) * 127.5
        mask = reduced(found.mask)[0, 0].numpy() >= COVERED
        overlaps.append((mask & wanted.mask).sum() / (mask | wanted.mask).sum())
        errors.append(np.abs(picture - wanted.image).mean())
    return {"overlap of silhouettes": float(np.mean(overlaps)), "colour error, of 255": float(np.mean(errors))}
