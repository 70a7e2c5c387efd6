"""Tests of fitting a head to views, and of painting it with them: a head that is known is found again."""

import pytest
import torch
import torch.nn.functional as F
from small_heads import wall

from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.views import Views
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.world import RADIUS
from dreamportrait.systems.heads.fit import YAWS, from_views
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.painting import painted
from dreamportrait.systems.heads.render import render


def views_of(head: Head, yaws: list[float], size: int) -> Views:
    cameras = orbit(yaws, 0.0, RADIUS, (0.0, 0.0, 0.0))
    with torch.no_grad():
        drawn = render(head.vertices[None], head.model, head.texture, cameras, size, torch.ones(3))
    return Views(cameras, drawn.image, drawn.depth, drawn.mask)


def texture(size: int) -> torch.Tensor:  # [3, size, size], smooth
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(2)) * 0.8 + 0.1
    return F.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)[0]


@pytest.mark.lengthy
def test_a_known_head_is_found_again() -> None:
    model = from_pretrained("mini/head")
    beta = torch.randn(model.num_shapes, generator=torch.Generator().manual_seed(1)).clamp(-1.5, 1.5)
    truth = Head(model, beta, texture(64)).posed(neck=(0, 8, 0))
    found = from_views(model, views_of(truth, YAWS, 64))
    start = Head(model, torch.zeros_like(beta), truth.texture)
    before, after = ((head.vertices - truth.vertices).norm(dim=1).mean() for head in (start, found))
    assert after < 0.35 * before
    assert after < 0.01 * model.height
    assert found.theta is not None
    # A turn of 8 degrees is 0.14 radians.
    assert float(found.theta[model.joint("neck"), 1]) == pytest.approx(0.14, abs=0.04)
    drawn, seen = (head.view(0.0, size=64).colors for head in (found, truth))
    assert (drawn - seen).abs().mean() < 0.05


def test_a_head_gets_the_colours_of_its_views_without_their_light() -> None:
    """A square seen from the front. The lamp is 0.97 on it, and the texture has none of that."""
    model = wall(mean_texture=torch.full((3, 8, 8), 0.5))
    truth = Head(model, torch.zeros(1), texture(32))
    assert model.mean_texture is not None
    found = painted(Head(model, torch.zeros(1), model.mean_texture), views_of(truth, [-15.0, 0.0, 15.0], 128))
    assert found.texture.shape == (3, 128, 128)
    expected = F.interpolate(truth.texture[None], (128, 128), mode="bilinear")[0]
    # Pictures of 128 pixels are looked up for texels that are about half as large.
    assert (found.texture - expected)[:, 8:-8, 8:-8].abs().max() < 0.03


def test_what_no_view_shows_is_taken_from_the_mirrored_side() -> None:
    """The left half of the square, as the viewer sees it, is hidden in every view: opacity is 0 there."""
    model = wall(mean_texture=torch.full((3, 8, 8), 0.5))
    half = torch.zeros(3, 32, 32)
    half[:, :, 16:] = texture(32)[:, :, 16:]
    seen = views_of(Head(model, torch.zeros(1), half), [0.0], 128)
    seen.opacity[..., :64] = 0
    assert model.mean_texture is not None
    found = painted(Head(model, torch.zeros(1), model.mean_texture), seen).texture
    assert (found - found.flip(2))[:, 8:-8, 8:56].abs().max() < 0.02


def test_what_stands_before_the_head_is_painted_and_what_is_behind_is_not() -> None:
    model = wall(mean_texture=torch.full((3, 8, 8), 0.5))
    assert model.mean_texture is not None
    head = Head(model, torch.zeros(1), model.mean_texture)
    for shift, taken in ((-0.1, True), (0.1, False)):
        seen = views_of(Head(model, torch.zeros(1), torch.zeros(3, 8, 8)), [0.0], 64)
        seen.depth.add_(shift)
        middle = painted(head, seen).texture[:, 64, 64]
        assert middle.tolist() == pytest.approx([0.0 if taken else 0.5] * 3, abs=1e-3)


def test_the_inside_of_the_mouth_keeps_the_mean_texture() -> None:
    for name, painted_over in (("skin", True), ("Teeth", False)):
        model = wall(
            mean_texture=torch.full((3, 8, 8), 0.5), parts=torch.zeros(2, dtype=torch.long), part_names=(name,)
        )
        assert model.mean_texture is not None
        seen = views_of(Head(model, torch.zeros(1), torch.zeros(3, 8, 8)), [0.0], 64)
        middle = painted(Head(model, torch.zeros(1), model.mean_texture), seen).texture[:, 64, 64]
        assert middle.tolist() == pytest.approx([0.0 if painted_over else 0.5] * 3, abs=1e-3)
