"""Tests of the stand-ins for other methods, and of the ablation's row without I2T."""

import pytest
import torch
from tiny_editing import diffusion
from tiny_freestyle import SIZE, cameras, few_shot, i2t
from tiny_styles import solid

from dreamportrait.systems.freestyle.baselines import PlaneLayers, dreamfusion, gan_inversion, hfgi3d, warped
from dreamportrait.systems.freestyle.fewshot import draw_heads
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.tuning import TuneSettings, tune_network

REACH = {"yaw": 20.0, "pitch": 7.0}


def front_of(seed: int) -> torch.Tensor:  # [1, 3, R, R]
    (head,) = draw_heads(solid(), [seed], 1.0)
    with torch.no_grad():
        return head.view(head.generator.config.around([0.0])).image.clamp(-1, 1)


def error(head, front: torch.Tensor) -> float:
    with torch.no_grad():
        return float((head.view(head.generator.config.around([0.0])).image - front).abs().mean())


def unchanged(generator) -> bool:
    return all(torch.equal(a, b) for a, b in zip(generator.parameters(), solid().parameters(), strict=True))


@pytest.mark.lengthy
def test_inversion_finds_the_head_of_a_front():
    generator, front = solid(), front_of(3)
    start, found = (gan_inversion(generator, front, steps=n) for n in (0, 20))
    assert error(found, front) < 0.8 * error(start, front)
    assert unchanged(generator)


@pytest.mark.lengthy
def test_tuning_the_backbone_draws_what_no_w_draws():
    generator = solid()
    front = torch.full((1, 3, SIZE, SIZE), 0.5)  # a grey that no head of the generator has
    pivot = gan_inversion(generator, front, steps=3)
    tuned = hfgi3d(generator, front, **REACH, steps=3, tuning_steps=10, views=1)
    assert error(tuned, front) < error(pivot, front)
    assert unchanged(generator)


def test_a_view_from_the_front_is_the_front_itself():
    """Where the front sees the head, the warped view has its colours; elsewhere it has those of the render."""
    (head,) = draw_heads(solid(), [1], 1.0)
    painted = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    camera = head.generator.config.around([0.0])
    same = warped(head, painted, camera)
    render = head.view(camera).image.clamp(-1, 1)
    # The points are found again at the centres of the same pixels, up to rounding of float32 in the projection.
    close = (same - painted).abs().amax(1) < 1e-3
    kept = (same - render).abs().amax(1) == 0
    assert (close | kept).all() and close.float().mean() > 0.5
    side = warped(head, painted, cameras()[:1])
    assert not torch.equal(side, same)


@pytest.mark.lengthy
def test_distillation_changes_the_planes():
    generator, network = solid(), i2t()
    given = network.mean_planes, network.deviation, diffusion(), "a gold statue"
    none, some = (dreamfusion(generator, *given, **REACH, steps=n) for n in (0, 3))
    assert torch.equal(none.planes[0], network.mean_planes)
    assert some.planes.isfinite().all() and not torch.equal(some.planes, none.planes)
    assert torch.equal(some.planes, dreamfusion(generator, *given, **REACH, steps=3).planes)
    assert unchanged(generator)


@pytest.mark.lengthy
def test_plane_layers_start_as_the_identity_and_learn(tmp_path, capsys):
    generator = solid()
    (head,) = draw_heads(generator, [0], 1.0)
    torch.manual_seed(0)
    layers, data = PlaneLayers(head), few_shot(identities=1)
    with torch.no_grad():
        assert torch.equal(layers(data.fronts).planes, head.planes)
    base = PictureTo3D(i2t(), generator)
    tune_network(layers, base, data, TuneSettings(steps=2, views=2, input="edited"), tmp_path)
    with torch.no_grad():
        assert not torch.equal(layers(data.fronts).planes, head.planes)
    assert not any(name in ("planes", "w") for name, _ in layers.named_parameters())
