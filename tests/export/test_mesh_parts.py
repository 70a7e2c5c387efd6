"""Tests of the steps from a density field to a textured surface, on shapes whose answers are known."""

import numpy as np
import pytest
import torch
from numpy import ndarray as Array
from tiny_portraits import GENERATOR, plain

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.mesh_field import Axes, Solid, box_axis, density_on_grid, find_level, signed_distance
from dreamportrait.export.mesh_surface import signed_volumes, surface, vertex_normals
from dreamportrait.export.mesh_unwrap import SIDES, unwrap
from dreamportrait.export.mesh_views import HeadViews, find_back, head_space, mesh_cameras
from dreamportrait.export.texture import bake, mix_views, vertex_colors
from dreamportrait.geometry.raster import rasterise, seen_from
from dreamportrait.geometry.rays import points_at

CONFIG = GeneratorConfig(box_warp=0.8, camera_pivot=(0.0, 0.0, 0.0))
AXES = Axes(*[box_axis(0.8, 64)] * 3)
RADIUS = 0.2


def solid(*balls: tuple[float, float, float, float], hole: float = 0.0) -> Solid:
    """Return balls (x, y, z, radius), with a spherical hole in the middle."""
    points = AXES.points().numpy()
    field = np.max([r - np.linalg.norm(points - centre, axis=-1) for *centre, r in balls], 0)
    return Solid(np.minimum(field, np.linalg.norm(points, axis=-1) - hole) if hole else field, AXES, 1.0)


@pytest.fixture(scope="module")
def ball() -> tuple[Array, Array, Array]:
    """Return positions, normals and faces of a ball."""
    positions, faces = surface(solid((0, 0, 0, RADIUS)))
    return positions, vertex_normals(positions, faces), faces


def views_of_ball(colors: torch.Tensor | None = None, size: int = 64) -> HeadViews:
    """Return what the usual cameras see of the ball: red from the left, green from the right, blue else."""
    cameras = mesh_cameras(CONFIG)
    positions, faces = surface(solid((0, 0, 0, RADIUS)))
    drawn = [seen_from(positions, faces, camera, size) for camera in cameras]
    opacity = torch.stack([torch.from_numpy(each.mask).float() for each in drawn])
    depth = torch.stack([torch.from_numpy(np.where(each.mask, each.depth, 3.0)).float() for each in drawn])
    if colors is None:
        colors = torch.full((len(cameras), 3, size, size), -1.0)
        for view, channel in enumerate((2, 0, 1, 2, 2)):
            colors[view, channel] = 1
    return HeadViews(cameras, colors, opacity, depth, None, head_space(cameras[0], None))


# The field.


@pytest.mark.parametrize("axes", ["official", "xy_yz_zx"])
def test_density_of_slices_is_that_of_points(axes: str) -> None:
    generator = plain(
        GeneratorConfig(**{**GENERATOR.to_dict(), "plane_axes": axes, "superresolution": GENERATOR.superresolution})
    )
    planes = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    head = Planes(generator, planes, torch.zeros(1, generator.num_ws, 16))
    grid = Axes(torch.linspace(-0.4, 0.3, 5), torch.linspace(-0.2, 0.5, 4), torch.linspace(-0.55, 0.1, 6))
    with torch.no_grad():
        expected, _ = generator.sample_density_and_color(grid.points().reshape(1, -1, 3), planes)
    found = density_on_grid(head, grid)
    assert found.shape == (6, 4, 5) and found.std() > 0.01
    # The order of sums differs: float32 sums of about 1.
    torch.testing.assert_close(found.flatten(), torch.nn.functional.softplus(expected - 1).flatten(), rtol=0, atol=1e-5)


def test_the_level_gives_the_silhouette_of_the_opacity() -> None:
    """Rays see a ball of radius 0.2; its density falls from the middle and is 50 at that radius."""
    views, radius = views_of_ball(), AXES.points().norm(dim=-1)
    level = find_level(50 * torch.exp((RADIUS - radius) * 20), views, 0.8)
    # Pixels are 0.01 wide. The level at half a pixel inside the edge is 50 exp(0.1), and candidates are 15 % apart.
    assert 45 < level < 65


def test_distance_to_the_edge_of_a_mask() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:] = True
    found = signed_distance(mask)
    assert found[2].tolist() == [-1.5, -0.5, 0.5, 1.5, 1.5, 1.5] and found[0, 3] == -0.5
    assert (signed_distance(np.ones((3, 3), bool)) > 0).all() and (signed_distance(np.zeros((3, 3), bool)) < 0).all()


# The background.


def scene(wall: float | None, opacity: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return z and opacity of a ball in front of a wall at z = wall."""
    views = views_of_ball()
    z = points_at(views.depth[:, None], views.cameras)[..., 2].reshape(views.depth.shape)
    ball = views.opacity > 0.5
    wall_z = 0.0 if wall is None else wall
    return torch.where(ball, z, torch.tensor(wall_z)), torch.where(ball, 1.0, 0.0 if wall is None else opacity)


@pytest.mark.parametrize("opacity", [1.0, 0.4])
def test_a_wall_is_found_also_if_it_is_dark(opacity: float) -> None:
    back = find_back(*scene(-0.3, opacity), 0.8)
    assert back is not None and -0.3 < back < 0.05  # the silhouette of a ball is where its surface has z = 0


def test_no_wall_behind_a_head_in_empty_space() -> None:
    assert find_back(*scene(None), 0.8) is None


def test_a_picture_filled_by_a_head_has_no_wall() -> None:
    assert find_back(torch.full((2, 32, 32), 0.1), torch.ones(2, 32, 32), 0.8) is None


def test_the_space_of_the_head_is_what_the_front_sees() -> None:
    front = mesh_cameras(CONFIG)[0]
    planes = head_space(front, -0.2)
    corners = points_at(torch.full((1, 1, 64, 64), 2.7), front[None])[0].reshape(64, 64, 3)
    height = corners @ planes[:, :3].T + planes[:, 3]  # [64, 64, 4]
    assert (height[..., :3] > 0).all()
    half = 0.5 / 64 / float(front[16]) * 2.7  # half a pixel, in the middle of the head
    assert np.isclose(float(height[32, 0, 0]), half, rtol=0.05)  # the left edge; the frustum is slightly tilted
    assert np.isclose(float(height[32, 63, 1]), half, rtol=0.05) and np.isclose(
        float(height[0, 32, 2]), half, rtol=0.05
    )
    assert torch.allclose(height[..., 3], corners[..., 2] + 0.2)


# The surface.


def edges(faces: Array) -> Array:  # [3 F, 2]
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def test_a_ball_is_closed_round_and_turned_outwards(ball: tuple[Array, Array, Array]) -> None:
    positions, normals, faces = ball
    # The field is exact, and interpolating it along edges of 0.0125 is off by less than a hundredth of them.
    assert np.allclose(np.linalg.norm(positions, axis=1), RADIUS, atol=2e-4)
    assert np.isclose(signed_volumes(positions, faces).sum(), 4 / 3 * np.pi * RADIUS**3, rtol=0.01)
    assert np.allclose(normals, positions / RADIUS, atol=0.05) and np.allclose(np.linalg.norm(normals, axis=1), 1)
    there, back = ({tuple(edge) for edge in pairs.tolist()} for pairs in (edges(faces), edges(faces)[:, ::-1]))
    assert there == back and len(there) == 3 * len(faces)  # each edge once in each direction


def test_floating_bits_go_and_large_parts_stay() -> None:
    for radius, parts in ((0.03, 1), (0.12, 2)):
        positions, faces = surface(solid((-0.15, 0, 0, 0.15), (0.25, 0, 0, radius)))
        assert (positions[:, 0].max() > 0.1) == (parts == 2)
        assert faces.max() == len(positions) - 1  # no vertex is left over


def test_cavities_go() -> None:
    positions, faces = surface(solid((0, 0, 0, RADIUS), hole=0.1))
    assert np.linalg.norm(positions, axis=1).min() > 0.19


def test_a_solid_that_reaches_the_edge_of_the_grid_is_closed() -> None:
    positions, faces = surface(solid((0, -0.4, 0, 0.3)))
    assert {*map(tuple, edges(faces).tolist())} == {*map(tuple, edges(faces)[:, ::-1].tolist())}


# The texture.


def test_an_atlas_has_a_place_for_every_face(ball: tuple[Array, Array, Array]) -> None:
    size = 256
    atlas = unwrap(*ball, size)
    positions, _, faces = ball
    assert np.array_equal(atlas.vertices[atlas.faces], faces)
    assert atlas.places.min() >= 1 and atlas.places.max() <= size - 1
    # One scale for all patches. Edges look shorter where the surface is tilted, at most by 55 degrees and a facet.
    across = np.linalg.norm(np.diff(atlas.places[atlas.faces[:, :2]], axis=1), axis=2)
    real = np.linalg.norm(np.diff(positions[faces[:, :2]], axis=1), axis=2)
    shown = (across / real)[real > 1e-3]
    assert shown.min() > 0.5 * shown.max()
    # No texel belongs to two faces: the area that is drawn is the sum of the areas.
    corners = atlas.places[atlas.faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    drawn = rasterise(atlas.places, atlas.depth, atlas.faces, (size, size))
    assert np.isclose(drawn.mask.sum(), areas.sum(), rtol=0.01)


def test_hidden_faces_get_patches_of_their_own() -> None:
    """Two balls one behind the other: all of the back one's front is hidden in the picture from the front."""
    positions, faces = surface(solid((0, 0, 0.2, 0.15), (0, 0, -0.2, 0.15)))
    normals, size = vertex_normals(positions, faces), 256
    atlas = unwrap(positions, normals, faces, size)
    front = (normals[faces].sum(1) @ SIDES[:, 0].T).argmax(1) == 0
    behind = front & (positions[faces[:, 0], 2] < 0)
    assert behind.sum() > 100
    low, high = (atlas.places[atlas.faces[chosen]].reshape(-1, 2) for chosen in (behind, front & ~behind))
    apart = (low.min(0) > high.max(0)) | (low.max(0) < high.min(0))
    assert apart.any()


def test_patches_that_do_not_fit() -> None:
    positions, faces = surface(
        solid(*[(0.2 * x, 0.2 * y, 0.2 * z, 0.06) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 1)])
    )
    with pytest.raises(ValueError, match="texture_size=8: too small for"):
        unwrap(positions, vertex_normals(positions, faces), faces, 8)


def test_views_colour_what_they_face(ball: tuple[Array, Array, Array]) -> None:
    views = views_of_ball()
    points = RADIUS * np.array([[0, 0, 1], [-0.6, 0, 0.8], [0.6, 0, 0.8], [0, 0, -1]], np.float32)
    total, weights = mix_views(views, points, points / RADIUS)
    colors = total[:3] / weights[:3, None]
    assert np.argmax(colors, 1).tolist() == [2, 0, 1] and (colors.max(1) > 0.6).all()
    assert weights[3] == 0  # no view sees the back


def test_hidden_points_are_not_coloured() -> None:
    behind = np.array([[0, 0, -0.4]], np.float32)  # faces the viewer, but the ball is in front of it
    assert mix_views(views_of_ball(), behind, np.array([[0, 0, 1]], np.float32))[1][0] == 0


def test_the_unseen_back_continues_the_colours_around_it(ball: tuple[Array, Array, Array]) -> None:
    positions, normals, _ = ball
    blue = torch.full((5, 3, 64, 64), -1.0)
    blue[:, 2] = 1
    colors = vertex_colors(views_of_ball(blue), positions, normals)
    assert np.allclose(colors, [0, 0, 1], atol=1e-3)


def test_a_baked_texture_shows_the_pictures(ball: tuple[Array, Array, Array]) -> None:
    """Colour pictures by the height of what they see: the texture must be as bright as each place is high."""
    views = views_of_ball()
    places = torch.stack(
        [points_at(d[None, None], c[None])[0] for d, c in zip(views.depth, views.cameras, strict=True)]
    )
    height = (places[..., 1] / RADIUS).reshape(len(views.cameras), 1, 64, 64).expand(-1, 3, -1, -1)
    views = HeadViews(views.cameras, height, views.opacity, views.depth, None, views.space)
    positions, normals, faces = ball
    size = 256
    atlas = unwrap(positions, normals, faces, size)
    texture = bake(views, atlas, positions, normals, vertex_colors(views, positions, normals), size)
    x, y = np.floor(atlas.places).astype(int).T
    expected = (positions[atlas.vertices, 1] / RADIUS / 2 + 0.5) * 255
    seen = normals[atlas.vertices, 2] > 0.5
    # A texel and a pixel are both about 0.01 high, 6 of 255 steps.
    assert np.abs(texture[y, x, 0] - expected)[seen].max() < 15
