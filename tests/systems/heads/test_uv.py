"""Tests of atlases: texels and points belong together, and lookups agree on both sides of a seam."""

import numpy as np
import pytest
import torch
from small_heads import wall
from torch import Tensor

from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.uv import Atlas, Gutter, atlas, dilated, gutter, sampled


def atlas_of(model: HeadModel, size: int) -> tuple[Atlas, Gutter]:
    assert model.uv is not None and model.uv_faces is not None
    places = atlas(model.uv, model.uv_faces, size)
    return places, gutter(places, *(x.numpy() for x in (model.uv, model.uv_faces, model.v_template, model.faces)))


def seam(model: HeadModel) -> tuple[Tensor, Tensor]:
    """Return the two places in the texture of each vertex on the seam of the skin."""
    assert model.uv is not None and model.uv_faces is not None and model.parts is not None
    skin = model.parts == 0
    pairs = torch.stack([model.faces[skin].flatten(), model.uv_faces[skin].flatten()], 1).unique(dim=0)
    vertex, count = pairs[:, 0].unique(return_counts=True)
    twice = vertex[count == 2]
    places = torch.stack([model.uv[pairs[pairs[:, 0] == v, 1]] for v in twice])  # [S, 2, 2]
    across = (places[:, 0, 0] - places[:, 1, 0]).abs() > 0.9  # not those that the lids share with nothing
    return places[across, 0], places[across, 1]


def test_each_texel_shows_the_point_whose_place_it_is() -> None:
    model = from_pretrained("mini/head")
    places, _ = atlas_of(model, 64)
    assert model.uv is not None
    found = (torch.from_numpy(places.shares).float()[..., None] * model.uv[model.uv_faces[places.faces]]).sum(1)
    np.testing.assert_allclose(found.numpy(), places.places, atol=1e-5)


def test_both_sides_of_the_seam_have_the_same_colour() -> None:
    model = from_pretrained("mini/head")
    places, border = atlas_of(model, 64)
    texture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    left, right = seam(model)
    assert len(left) == 32  # the rows of the head's grid

    def apart(painted: Tensor) -> Tensor:
        return (sampled(painted, left) - sampled(painted, right)).abs().mean()

    before, after = apart(dilated(texture, places.mask)), apart(border.fill(dilated(texture, places.mask)))
    # Rows of texels end between the rows of vertices; the nearest texel is the one opposite for nearly all of them.
    assert after < 0.15 * before


def test_open_borders_copy_their_neighbours() -> None:
    model = wall(uv=torch.tensor([[0.25, 0.75], [0.75, 0.75], [0.25, 0.25], [0.75, 0.25]]))
    places, border = atlas_of(model, 8)
    assert int(places.mask.sum()) == 16
    assert len(border.texels) == 20  # a ring around 4 x 4 texels
    texture = border.fill(torch.arange(64.0).view(1, 8, 8))
    assert texture[0, 3, 1] == texture[0, 3, 2]
    assert texture[0, 1, 4] == texture[0, 2, 4]
    assert texture[0, 1, 1] == texture[0, 2, 2]
    assert texture[0, 2:6, 2:6].equal(torch.arange(64.0).view(8, 8)[2:6, 2:6])


@pytest.mark.parametrize("rounds", [1, 3])
def test_dilation_reaches_so_many_texels(rounds: int) -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[4, 4] = True
    grown = dilated(torch.ones(1, 9, 9), mask, rounds)[0]
    assert int(grown.sum()) == (2 * rounds + 1) ** 2
