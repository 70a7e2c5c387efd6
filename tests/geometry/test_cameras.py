"""Tests of camera poses, intrinsics and labels: official values, the convention, and rejected inputs."""

import math

import pytest
import torch
from goldens import load

from dreamportrait.geometry.cameras import (
    camera_label,
    check_camera,
    check_label,
    intrinsics_from_fov,
    official_pose,
    random_angles,
)
from dreamportrait.geometry.rays import rays_from_label

GOLDEN = load("camera").info
# Float32 trigonometry of numbers up to 3 is off by a few units in the last place.
CLOSE = {"rtol": 0, "atol": 2e-6}


def matrix(case) -> torch.Tensor:
    return torch.tensor(case["c2w"])[None]


@pytest.mark.parametrize("case", GOLDEN["lookat"])
def test_look_at(case):
    found = official_pose(case["h"], case["v"], case["radius"], case["lookat"])
    torch.testing.assert_close(found, matrix(case), **CLOSE)


@pytest.mark.parametrize("case", GOLDEN["gaussian_std0"] + GOLDEN["uniform_std0"])
def test_poses_without_spread(case):
    found = official_pose(case["h"], case["v"], case["radius"])
    # At the clamped poles the position is nearly on the up axis, which amplifies rounding to 1e-5.
    torch.testing.assert_close(found, matrix(case), rtol=0, atol=2e-6 if 0.1 < case["v"] < 3 else 5e-5)


@pytest.mark.parametrize("case", GOLDEN["with_draws"])
def test_poses_with_draws(case, monkeypatch):
    """`random_angles` turns the given draws, h first, into the angles of the official poses."""
    draws = iter([case["draw_h"], case["draw_v"]])
    for name in ("rand", "randn"):
        monkeypatch.setattr(torch, name, lambda count, **_: torch.full((count,), next(draws)))
    distribution = "uniform" if case["sampler"] == "uniform" else "normal"
    yaw = random_angles(1, case["horizontal_mean"], case["horizontal_stddev"], distribution)
    pitch = random_angles(1, case["vertical_mean"], case["vertical_stddev"], distribution)
    found = official_pose(yaw, pitch, case["radius"], case["lookat"] or (0, 0, 0))
    torch.testing.assert_close(found, matrix(case), **CLOSE)


@pytest.mark.parametrize("case", GOLDEN["fov_to_intrinsics"])
def test_intrinsics(case):
    found = intrinsics_from_fov(case["fov_degrees"])
    torch.testing.assert_close(found, torch.tensor(case["intrinsics"]), rtol=1e-6, atol=0)


def label_at(yaw=math.pi / 2, pitch=math.pi / 2, target=(0.0, 0.0, 0.0)):
    return camera_label(official_pose(yaw, pitch, 2.7, target), intrinsics_from_fov(18.837))


def test_the_convention():
    """Rays follow the convention that `cameras` documents: x right, y down, z forward, world y up."""
    label = label_at()
    origins, directions = rays_from_label(label, 64)
    assert torch.allclose(origins[0, 0], torch.tensor([0.0, 0.0, 2.7]), atol=1e-6)  # in front of the face
    grid = directions.reshape(64, 64, 3)
    assert (grid[..., 2] < 0).all()  # looking back at the origin
    assert grid[0, :, 1].min() > 0 > grid[-1, :, 1].max()  # the first row looks up
    assert grid[:, 0, 0].max() < 0 < grid[:, -1, 0].min()  # the first column looks towards -x


def test_points_project_back_onto_their_pixels():
    """Points along each pixel's ray project through pose and intrinsics back onto the pixel."""
    label = label_at(yaw=torch.tensor([1.2, 2.0]), pitch=torch.tensor([1.4, 1.7]), target=(0.0, 0.1, 0.2)).double()
    origins, directions = rays_from_label(label, 8)
    points = origins + directions * torch.linspace(2.2, 3.3, 64, dtype=torch.float64)[:, None]
    world2cam = torch.linalg.inv(label[:, :16].reshape(2, 4, 4))
    in_camera = points @ world2cam[:, :3, :3].mT + world2cam[:, None, :3, 3]
    projected = (in_camera / in_camera[..., 2:]) @ label[:, 16:].reshape(2, 3, 3).mT
    centres = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    expected = torch.stack([u, v], -1).reshape(1, 64, 2).expand(2, 64, 2)
    torch.testing.assert_close(projected[..., :2], expected, rtol=0, atol=1e-6)  # poses are stored in float32


def test_random_angles():
    g = torch.Generator().manual_seed(0)
    normal = random_angles(20000, 1.5, 0.3, generator=g)
    uniform = random_angles(20000, 1.5, 0.3, "uniform", generator=g)
    assert normal.mean().item() == pytest.approx(1.5, abs=0.01) and normal.std().item() == pytest.approx(0.3, abs=0.01)
    assert uniform.min() >= 1.2 - 1e-6 and uniform.max() <= 1.8 + 1e-6
    assert uniform.std().item() == pytest.approx(0.6 / 12**0.5, abs=0.01)
    with pytest.raises(ValueError, match="distribution='poisson'"):
        random_angles(1, 0.0, 1.0, "poisson")


def change(at, value):
    label = label_at().repeat(3, 1)
    label[1, at] = value
    return label


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (torch.zeros(2, 24), ValueError, "25 numbers per row"),
        (torch.zeros(25), ValueError, r"rank 2 \[N, 25\]"),
        (torch.zeros(2, 25, dtype=torch.int64), TypeError, "floating point"),
        (change(0, 1.5), ValueError, "camera 1 of 3: the pose must be a rotation"),
        (change(0, float("nan")), ValueError, "camera 1 of 3: the pose must be a rotation"),
        (change(slice(0, 3), -label_at()[0, :3]), ValueError, "determinant 1"),
        (change(12, 1.0), ValueError, "last row of the pose"),
        (change(16, -4.0), ValueError, "focal lengths must be positive"),
        (change(18, 256.0), ValueError, "divide intrinsics by the image size"),
    ],
)
def test_bad_labels(label, error, message):
    with pytest.raises(error, match=message):
        check_camera(label)


def test_label_count():
    with pytest.raises(ValueError, match=r"one row per sample, 2, got shape \[3, 25\]"):
        check_label(label_at().repeat(3, 1), batch=2)


@pytest.mark.parametrize("degrees", [0, 180, float("nan")])
def test_bad_field_of_view(degrees):
    with pytest.raises(ValueError, match="degrees must"):
        intrinsics_from_fov(degrees)


def test_bad_radius():
    with pytest.raises(ValueError, match="radius must be positive, got 0"):
        official_pose(radius=0)
