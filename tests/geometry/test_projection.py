"""Tests of projection in both directions against the miniature world's exact renderer."""

import math

import numpy as np
import pytest
import torch

from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.geometry.rays import points_at, project, rays_from_label
from dreamportrait.metrics.consistency import reprojection_error
from dreamportrait.miniworld.attributes import make_attributes, read_code, sample_codes
from dreamportrait.miniworld.caster import Camera, Solid, cast
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.world import random_cameras

SIZE = 64


@pytest.fixture(scope="module")
def cameras() -> torch.Tensor:
    return torch.from_numpy(random_cameras(6, seed=0))


def test_a_point_on_a_ray_is_seen_at_its_pixel(cameras: torch.Tensor) -> None:
    depth = torch.rand(len(cameras), 1, SIZE, SIZE) + 2
    place, distance = project(points_at(depth, cameras), cameras)
    centres = (torch.arange(SIZE) + 0.5) / SIZE
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    # A few operations on float32 coordinates of about 3 have errors of 1e-6 of them.
    torch.testing.assert_close(place, torch.stack([u, v], -1).reshape(1, -1, 2).expand_as(place), rtol=0, atol=1e-5)
    torch.testing.assert_close(distance, depth.flatten(1), rtol=0, atol=1e-5)


@pytest.mark.lengthy
def test_the_face_renderer_sees_small_balls_where_they_are_projected(cameras: torch.Tensor) -> None:
    points = np.array([[0.1, 0.2, 0.05], [-0.2, -0.1, 0.1], [0.0, 0.0, 0.0], [0.15, -0.2, -0.2]])
    places, distances = project(torch.from_numpy(points).float().expand(len(cameras), -1, -1), cameras)
    for label, place, distance in zip(cameras, places, distances, strict=True):
        eye = Camera.from_label(label.numpy(), 1024)
        for point, uv, far in zip(points, place.numpy(), distance, strict=True):
            hits = cast([Solid(0, tuple(point), (0.01, 0.01, 0.01), np.zeros(3))], eye)
            rows, columns = np.nonzero(hits.solid == 0)
            # The centre of about a thousand pixels; perspective moves it by less than half a pixel.
            assert abs((columns.mean() + 0.5) - uv[0] * 1024) < 0.5
            assert abs((rows.mean() + 0.5) - uv[1] * 1024) < 0.5
            lengths = np.sqrt((eye.directions() ** 2).sum(-1))
            nearest = (hits.t * lengths)[rows, columns].min()
            assert abs(nearest + 0.01 - float(far)) < 1e-4  # the near side of the ball


def test_face_pictures_and_eg3d_rays_agree_on_the_depth() -> None:
    """Points on EG3D's rays at the renderer's depth lie on the ellipsoid that was drawn."""
    label = camera_label(official_pose(math.pi / 2 + 0.3, math.pi / 2 - 0.1), intrinsics_from_fov(18.837))
    eye = Camera.from_label(label[0].numpy(), SIZE)
    center, radii = np.array([0.02, -0.03, 0.01]), np.array([0.2, 0.1, 0.15])
    hits = cast([Solid(0, tuple(center), tuple(radii), np.zeros(3))], eye)
    depth = hits.t * np.sqrt((eye.directions() ** 2).sum(-1))
    origins, directions = rays_from_label(label, SIZE)
    points = (origins[0] + torch.from_numpy(depth).reshape(-1, 1) * directions[0]).numpy()[hits.solid.ravel() == 0]
    level = (((points - center) / radii) ** 2).sum(1)
    assert len(points) > 300
    # The surface is |.|^2 = 1; float32 distances of 2.7 are accurate to 3e-7, divided by a radius of 0.1.
    np.testing.assert_allclose(level, 1, atol=2e-4)


def test_exact_pictures_are_consistent_and_moved_ones_are_not() -> None:
    attributes, traits = read_code(sample_codes(1, 0)[0])
    labels = camera_label(official_pose(torch.tensor([math.pi / 2, math.pi / 2 + 0.2])), intrinsics_from_fov(18.837))
    views = []
    for label in labels:
        picture = render(attributes, traits, label.numpy(), 128)
        image = torch.from_numpy(picture.image).permute(2, 0, 1)[None].float() / 127.5 - 1
        views.append((image, torch.from_numpy(picture.depth)[None, None], label[None]))
    exact = reprojection_error(views[0], views[1], nearer_than=3.0, tolerance=0.02)
    shifted = (views[1][0].roll(6, -1), views[1][1].roll(6, -1), views[1][2])
    wrong = reprojection_error(views[0], shifted, nearer_than=3.0, tolerance=0.02)
    assert exact.seen > 0.8
    # The light is fixed to the head, so colours agree except where edges are resampled.
    assert exact.color < 0.06
    assert exact.depth < 0.008
    assert wrong.color > 2 * exact.color


def test_pictures_do_not_depend_on_the_resolution_beyond_its_pixels() -> None:
    face = make_attributes(hat="wide", eyewear="glasses")
    label = random_cameras(1, 5)[0]
    large = render(face, np.zeros(16), label, 128)
    small = render(face, np.zeros(16), label, 64)
    halved = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
    # The large picture has twice the rays along each side: pixels on edges differ, the mean does not.
    assert np.abs(halved - small.image).mean() < 3
    assert (large.mask[::2, ::2] == small.mask).mean() > 0.97
