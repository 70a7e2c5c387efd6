"""Tests of pictures of heads: colours and light by hand, textures, and gradients down to the shape."""

import pytest
import torch
import torch.nn.functional as F
from meshes import front
from small_heads import WALL, wall
from torch import Tensor

from dreamportrait.systems.heads.render import AMBIENT, DIFFUSE, LIGHT, Rendering, render
from dreamportrait.systems.heads.skinning import shaped
from dreamportrait.systems.heads.uv import atlas, dilated, sampled


def drawn(texture: Tensor, shading: str = "lamp", size: int = 32) -> Rendering:
    return render(WALL[None], wall(), texture, front(), size, torch.tensor([0.0, 0, 1]), shading)  # type: ignore[arg-type]


def test_colours_are_texture_times_lamp() -> None:
    found = drawn(torch.full((3, 4, 4), 0.5))
    lamp = AMBIENT + DIFFUSE * LIGHT[2]  # the wall faces z
    torch.testing.assert_close(found.image[0, :, 16, 16], torch.full((3,), 0.5 * lamp * 2 - 1))
    torch.testing.assert_close(found.image[0, :, 0, 0], torch.tensor([-1.0, -1, 1]))  # the background
    assert found.mask[0, 0, 16, 16] == 1
    assert found.mask[0, 0, 0, 0] == 0
    # The camera is at 2.7; the centre of the pixel is a little off the axis, which makes its ray longer.
    assert found.depth[0, 0, 16, 16].item() == pytest.approx(2.7, abs=2e-4)


def test_the_texture_is_upright() -> None:
    texture = torch.zeros(3, 2, 2)
    texture[0, 0, 0] = texture[1, 0, 1] = texture[2, 1, 0] = 1  # red, green; blue, black
    picture = (drawn(texture, "none").image[0] + 1) / 2
    corners = [picture[:, y, x].round().tolist() for y, x in ((7, 7), (7, 24), (24, 7), (24, 24))]
    assert corners == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_normals_as_colours() -> None:
    image = drawn(torch.zeros(3, 2, 2), "normals").image
    torch.testing.assert_close(image[0, :, 16, 16], torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)


def test_gradient_reaches_shape_and_texture() -> None:
    """Moving the wall by 1 moves its left edge by the focal length over the distance, in widths of the picture."""
    model, beta = wall(), torch.zeros(1, 1, requires_grad=True)
    texture = torch.full((3, 4, 4), 0.5, requires_grad=True)
    found = render(shaped(model, beta), model, texture, front(), 64, torch.zeros(3), "none")
    left = found.mask[..., :32].sum()  # pixels covered on the left half
    (slope,) = torch.autograd.grad(left, beta, retain_graph=True)
    per_unit = front()[0, 16] / 2.7 * 64
    height = found.mask[0, 0, :, 24].sum()
    # At the two corners, edges above and below share the pixels with the one beside: 1 of 46 rows each.
    torch.testing.assert_close(slope[0, 0], -per_unit * height, rtol=0.03, atol=0)
    (share,) = torch.autograd.grad(found.image.sum(), texture)
    assert (share > 0).all()


def test_models_without_places_cannot_be_painted() -> None:
    model = wall(uv=None, uv_faces=None)
    with pytest.raises(ValueError, match="has no places in a texture"):
        render(WALL[None], model, torch.zeros(3, 2, 2), front(), 8, torch.zeros(3))


def test_each_texel_lies_on_the_surface_that_shows_it() -> None:
    model = wall()
    assert model.uv is not None and model.uv_faces is not None
    found = atlas(model.uv, model.uv_faces, 8)
    assert found.mask.all()
    places = found.points(model.uv.numpy(), model.uv_faces.numpy())
    torch.testing.assert_close(torch.from_numpy(places), torch.from_numpy(found.places).double())
    points = found.points(WALL.numpy(), model.faces.numpy())
    torch.testing.assert_close(torch.from_numpy(points[0]), torch.tensor([-7.0, 7, 0]).double() / 8 * 0.25)


def test_gutters_are_filled_outwards() -> None:
    texture, mask = torch.zeros(1, 5, 5), torch.zeros(5, 5, dtype=torch.bool)
    texture[0, 2, 2], mask[2, 2] = 4.0, True
    assert dilated(texture, mask, 1)[0, 1:4, 1:4].eq(4).all()
    assert dilated(texture, mask, 1)[0, 0].eq(0).all()
    assert dilated(texture, mask, 2).eq(4).all()


def test_texel_centres_return_their_texels() -> None:
    texture = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    centres = (torch.arange(4) + 0.5) / 4
    uv = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).reshape(-1, 2)
    torch.testing.assert_close(sampled(texture, uv).T.reshape(3, 4, 4), texture)
    middle = F.avg_pool2d(texture[None, :, 1:3, 1:3], 2)[0, :, 0, 0]
    torch.testing.assert_close(sampled(texture, torch.tensor([[0.5, 0.5]]))[0], middle)
