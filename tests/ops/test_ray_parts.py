"""Tests of plane lookup, sample placement and ray marching: official values and values computed by hand."""

import math

import pytest
import torch
from goldens import load

from eg3d_ops.marching import RaySums, finish, interval_weights, march
from eg3d_ops.planes import PLANE_AXES, parse_plane_axes, sample_planes
from eg3d_ops.sampling import auto_limits, box_limits, importance_depths, inverse_cdf, stratified_depths

GOLDEN = load("renderer")


def assert_same(actual, expected):
    # Both sides compute the same float32 formulas in another order: a few roundings of numbers of size 1 to 10.
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("box_warp", [1, 1.6])
def test_lookup(box_warp):
    t = GOLDEN.group("lookup")
    features = sample_planes(t["planes"], t["coordinates"], PLANE_AXES["official"], box_warp)
    assert_same(features, t[f"features_box_warp_{box_warp}"])


@pytest.mark.parametrize("name", ["official", "xy_yz_zx"])
def test_axes_of_every_plane(name):
    """A plane whose two channels hold its own column and row coordinate returns the position's components."""
    if name == "official":
        assert GOLDEN.info["lookup"]["projection_of_xyz_1_2_3_on_planes_0_1_2"] == [
            [(1.0, 2.0, 3.0)[axis] for axis in pair] for pair in PLANE_AXES[name]
        ]
    ramp = torch.linspace(-1 + 1 / 64, 1 - 1 / 64, 64)  # texel centres
    plane = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)])
    points = torch.tensor(GOLDEN.info["axis_probe"]["points"])[None]
    sampled = sample_planes(plane.expand(1, 3, 2, 64, 64), points, PLANE_AXES[name], 1.0)  # [1, 3, 2, 2]
    expected = torch.stack([2 * points[..., list(pair)] for pair in PLANE_AXES[name]], 1)
    assert_same(sampled, expected)
    if name == "official":
        assert_same(sampled[0], torch.tensor(GOLDEN.info["axis_probe"]["sampled"]))


def test_fixed_axes_span_every_pair_once():
    assert sorted(tuple(sorted(pair)) for pair in PLANE_AXES["xy_yz_zx"]) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("bad", ["offical", [(0, 0)], [(0, 3)], [(0, 1, 2)]])
def test_bad_plane_axes(bad):
    with pytest.raises(ValueError, match="plane_axes="):
        parse_plane_axes(bad)


@pytest.mark.parametrize("side", ["1", "1.6"])
def test_box_limits(side):
    t = GOLDEN.group("box")
    near, far = box_limits(t["origins"], t["directions"], float(side))
    assert_same(near, t[f"start_{side}"])
    assert_same(far, t[f"end_{side}"])


def test_box_limits_by_hand():
    origins = torch.tensor([[0.0, 0, 2], [0, 0, 0], [0.5, 0, 2], [0.6, 0, 2]])
    directions = torch.tensor([[0.0, 0, -1]]).expand(4, 3)
    near, far = box_limits(origins, directions, 1.0)
    # The rays go through the middle, start inside (the entry lies behind), run along a face, and miss the box.
    assert near.flatten().tolist() == [1.5, -0.5, 1.5, -1]
    assert far.flatten().tolist() == [2.5, 0.5, 2.5, -2]


def test_auto_limits_fill_missing_rays():
    origins = torch.tensor([[[0.0, 0, 2], [0, 0, 3], [9, 9, 9]]])
    directions = torch.tensor([[[0.0, 0, -1]]]).expand(1, 3, 3)
    near, far = auto_limits(origins, directions, 1.0)
    assert near.flatten().tolist() == [1.5, 2.5, 1.5]  # smallest entry
    assert far.flatten().tolist() == [2.5, 3.5, 2.5]  # largest *entry*, as in the training of the released models
    near, far = auto_limits(origins[:, 2:], directions[:, 2:], 1.0)
    assert (near.item(), far.item()) == (-1, -2)  # no ray hits the box, so there is nothing to fill from


@pytest.mark.parametrize("case", ["linear", "disparity", "tensor"])
@pytest.mark.parametrize("draws", ["u", "half"])
def test_stratified(case, draws):
    t = GOLDEN.group("stratified")
    expected = t[f"{case}_{draws}"][..., 0]
    limits = GOLDEN.info["stratified"]
    near = t["start_tensor"] if case == "tensor" else torch.full((2, 36, 1), limits["ray_start"])
    far = t["end_tensor"] if case == "tensor" else torch.full((2, 36, 1), limits["ray_end"])
    u = t["u"][..., 0] if draws == "u" else 0.5
    depths = stratified_depths(near, far, limits["depth_resolution"], u, case == "disparity")
    assert_same(depths[:, : expected.shape[1]], expected)


def importance_draws(kind):
    if kind == "u":
        return GOLDEN.tensors["importance/u"].reshape(2, 5, 10)
    return {"half": torch.full((10,), 0.5), "grid": (torch.arange(10) + 0.5) / 10}[kind].expand(2, 5, 10)


@pytest.mark.parametrize("kind", ["u", "half", "grid"])
def test_importance(kind):
    t = GOLDEN.group("importance")
    depths = importance_depths(t["depths"][..., 0], t["weights"][..., 0], importance_draws(kind))
    assert_same(depths, t[f"out_{kind}"][..., 0])


def test_inverse_cdf():
    t = GOLDEN.group("pdf")
    assert_same(inverse_cdf(t["bins"], t["weights"], t["u"]), t["out_u"])
    assert_same(inverse_cdf(t["bins"], t["weights"], torch.linspace(0, 1, 5).expand(4, 5)), t["out_det_5"])


def test_importance_of_a_single_ray():
    """A single ray works, although the official code fails: a ray's samples must not depend on its neighbours."""
    t = GOLDEN.group("importance")
    draws = importance_draws("grid")
    alone = importance_depths(t["depths"][:1, :1, :, 0], t["weights"][:1, :1, :, 0], draws[:1, :1])
    assert_same(alone, t["out_grid"][:1, :1, :, 0])


@pytest.mark.parametrize("background", ["plain", "white"])
def test_march(background):
    t = GOLDEN.group("marcher")
    colors = t["colors"].clone().requires_grad_()
    densities = t["densities"].clone().requires_grad_()
    depths = t["depths"][..., 0]
    assert_same(interval_weights(densities[..., 0], depths), t[f"{background}_weights"][..., 0])
    out = finish(march(colors, densities[..., 0], depths), background == "white")
    assert_same(out.features, t[f"{background}_rgb"])
    assert_same(out.depth, t[f"{background}_depth"])
    d_colors, d_densities = torch.autograd.grad((out.features * t["grad_rgb"]).sum(), (colors, densities))
    assert_same(d_colors, t[f"{background}_grad_colors"])
    assert_same(d_densities, t[f"{background}_grad_densities"])


def test_march_by_hand():
    # Two intervals of length 1 with softplus(density - 1) = ln 2: each absorbs half of the light that reaches it.
    densities = torch.tensor([1.0, 1.0, 1.0])  # softplus(0) = ln 2
    depths = torch.tensor([1.0, 2.0, 3.0])
    colors = torch.tensor([[0.0], [1.0], [1.0]])
    sums = march(colors, densities, depths)
    assert_same(interval_weights(densities, depths), torch.tensor([0.5, 0.25]))
    assert_same(sums.color, torch.tensor([0.5 * 0.5 + 0.25 * 1]))
    assert_same(sums.depth, torch.tensor([0.5 * 1.5 + 0.25 * 2.5]))
    assert_same(sums.weight, torch.tensor([0.75]))


def test_depth_of_rays_without_weight():
    """Rays without weight get the largest depth of the batch and no gradient; 0/0 must not reach other rays."""
    weight = torch.tensor([[[0.0], [0.5]]], requires_grad=True)
    depth = torch.tensor([[[0.0], [1.0]]], requires_grad=True)
    sums = RaySums(torch.zeros(1, 2, 3), depth, weight, torch.tensor([[[1.0, 4.0], [1.0, 3.0]]]))
    out = finish(sums, white_back=False)
    assert out.depth.flatten().tolist() == [4.0, 2.0]
    for gradient in torch.autograd.grad(out.depth.sum(), (weight, depth)):
        assert gradient[0, 0] == 0 and math.isfinite(gradient[0, 1])


def test_nan_weight_is_not_hidden():
    sums = RaySums(torch.zeros(1, 1, 3), torch.zeros(1, 1, 1), torch.full((1, 1, 1), torch.nan), torch.ones(1, 1, 2))
    out = finish(sums, white_back=False)
    assert out.depth.isnan().all() and out.weights.isnan().all()
