"""Tests of differentiable pictures of meshes: surfaces, edges, normals, and the gradient of silhouettes."""

import math

import pytest
import torch
from meshes import ball
from torch import Tensor

from dreamportrait.geometry.antialias import antialias, crossings
from dreamportrait.geometry.meshes import edges_of, to_screen, vertex_normals, visible_surface

SIZE = 40


def on_screen(points: Tensor, radius: Tensor | float, center: tuple[float, float]) -> Tensor:  # [V, 3] -> [1, V, 3]
    """Return an orthographic view of a ball, far away, so that its outline is a circle of this radius in pixels."""
    xy = points[:, :2] * radius + points.new_tensor(center)
    return torch.cat([xy, 1000 - points[:, 2:]], 1)[None]


def coverage(screen: Tensor, faces: Tensor, size: int = SIZE) -> Tensor:  # -> [N, 1, S, S]
    surface = visible_surface(screen, faces, size)
    background = torch.zeros(len(screen), 1, size, size, dtype=screen.dtype)
    mask = surface.picture(torch.ones(len(surface.pixels), 1, dtype=screen.dtype), background)
    return antialias(mask, screen, faces, edges_of(faces), surface)


def test_edges_of_a_square() -> None:
    ends, faces = edges_of(torch.tensor([[0, 1, 2], [2, 1, 3]]))
    found = {(*map(int, e), *sorted(map(int, f))) for e, f in zip(ends, faces, strict=True)}
    assert found == {(1, 2, 0, 1), (0, 1, -1, 0), (0, 2, -1, 0), (1, 3, -1, 1), (2, 3, -1, 1)}


def test_a_closed_surface_has_no_boundary() -> None:
    points, faces = ball()
    edges = edges_of(faces)
    assert len(edges.ends) == 3 * len(faces) // 2
    assert (edges.faces >= 0).all()
    # Outward faces give outward normals; a ball's normals are its points, up to the size of its faces.
    assert (vertex_normals(points[None], faces)[0] * points).sum(1).min() > 0.99


@pytest.mark.parametrize("center", [(20.0, 20.0), (19.3, 20.62), (20.5, 18.75)])
@pytest.mark.parametrize("rings", [24, 64])  # faces of about 1.5 pixels, and faces far smaller than a pixel
def test_gradient_of_the_area(center: tuple[float, float], rings: int) -> None:
    """The area of a disc grows by its circumference. 2 % is the limit: the outline is a polygon seen on a grid."""
    points, faces = ball(rings, 2 * rings)
    radius = torch.tensor(12.0, dtype=torch.float64, requires_grad=True)
    area = coverage(on_screen(points, radius, center), faces).sum()
    (slope,) = torch.autograd.grad(area, radius)
    assert abs(float(area.detach()) / (math.pi * 144) - 1) < 0.02
    assert abs(float(slope) / (2 * math.pi * 12) - 1) < 0.02


def test_gradient_of_a_moved_vertex() -> None:
    """Autograd agrees with central differences of the mean colour for vertices on the outline."""
    points, faces = ball()
    screen = on_screen(points, 12.0, (20.3, 19.6))
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(1, 1, SIZE, SIZE, generator=generator, dtype=torch.float64) + 0.5

    def mean(places: Tensor) -> Tensor:
        return (coverage(places, faces) * weights).mean()

    moved = screen.clone().requires_grad_()
    (slope,) = torch.autograd.grad(mean(moved), moved)
    outline = torch.nonzero(slope[0, :, :2].abs().amax(1) > 1e-4).flatten()
    assert len(outline) >= 10
    for vertex in outline[torch.randperm(len(outline), generator=generator)[:10]].tolist():
        axis = int(slope[0, vertex, :2].abs().argmax())
        step = torch.zeros_like(screen)
        step[0, vertex, axis] = 0.01  # pixels; the picture is a smooth function of the vertex piece by piece
        difference = float(mean(screen + step) - mean(screen - step)) / 0.02
        assert abs(difference - float(slope[0, vertex, axis])) < 0.05 * abs(difference), vertex


def test_pixels_inside_do_not_change() -> None:
    points, faces = ball()
    screen = on_screen(points, 12.0, (20.0, 20.0))
    surface = visible_surface(screen, faces, SIZE)
    colours = torch.rand(1, 3, SIZE, SIZE, dtype=torch.float64)
    smooth = antialias(colours, screen, faces, edges_of(faces), surface)
    y, x = torch.meshgrid(*[torch.arange(SIZE) + 0.5] * 2, indexing="ij")
    far = ((x - 20).square() + (y - 20).square()).sqrt()
    inside, outside = far < 12 - 2, far > 12 + 2
    assert smooth[..., inside].equal(colours[..., inside])
    assert smooth[..., outside].equal(colours[..., outside])
    assert not smooth.equal(colours)


def test_one_edge_by_hand() -> None:
    """A wall ends at x = 2.8: the pixel from 2 to 3, whose centre it covers, is covered to 80 %."""
    screen = torch.tensor([[[-9.0, -50, 1], [2.8, -50, 1], [2.8, 50, 1], [-9.0, 50, 1]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    mask = coverage(screen, faces, 5)[0, 0]
    torch.testing.assert_close(mask, torch.tensor([[1.0, 1, 0.8, 0, 0]]).expand(5, 5))
    screen[0, 1:3, 0] = 3.3  # now 30 % of the next pixel, whose centre is not covered
    torch.testing.assert_close(coverage(screen, faces, 5)[0, 0], torch.tensor([[1.0, 1, 1, 0.3, 0]]).expand(5, 5))


def test_gradcheck_of_two_triangles() -> None:
    points = torch.tensor([[[1.3, 1.1, 1.0], [6.2, 1.9, 1.4], [2.1, 6.4, 1.2], [7.3, 6.1, 1.7]]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    colours = torch.rand(1, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def picture(screen: Tensor, colours: Tensor) -> Tensor:
        surface = visible_surface(screen, faces, 8)
        plain = surface.picture(surface.blend(faces, colours), torch.zeros(1, 2, 8, 8, dtype=torch.float64))
        return antialias(plain, screen, faces, edges_of(faces), surface)

    assert torch.autograd.gradcheck(picture, (points.requires_grad_(), colours.requires_grad_()), eps=1e-6, atol=1e-5)


def test_a_hidden_silhouette_changes_nothing() -> None:
    """A ball behind a wall has an outline, but no crossing is seen."""
    points, faces = ball()
    hidden = on_screen(points, 8.0, (20.0, 20.0))[0]
    wall = torch.tensor([[-90.0, -90, 10], [200, -90, 10], [-90, 200, 10]], dtype=torch.float64)
    screen, all_faces = torch.cat([hidden, wall])[None], torch.cat([faces, torch.tensor([[0, 1, 2]]) + len(points)])
    surface = visible_surface(screen, all_faces, SIZE)
    assert len(crossings(screen, all_faces, edges_of(all_faces), surface).s) == 0
    alone = visible_surface(screen[:, :-3], faces, SIZE)
    assert len(crossings(screen[:, :-3], faces, edges_of(faces), alone).s) > 20


def test_interpolation_is_corrected_for_perspective() -> None:
    """A slope from z = 1 to z = 3 shows the middle of its texture where z = 2, at three quarters of its way."""
    screen = torch.tensor([[[0.0, -50, 1], [0.0, 50, 1], [8.0, 0, 3]]], dtype=torch.float64)
    surface = visible_surface(screen, torch.tensor([[0, 1, 2]]), 8)
    z = surface.blend(torch.tensor([[0, 1, 2]]), screen[0, :, 2:])
    row = surface.pixels // 8 == 4
    x = (surface.pixels[row] % 8 + 0.5).double()
    torch.testing.assert_close(z[row, 0], 1 / (1 - x / 12))


def test_screen_coordinates_match_rays() -> None:
    from meshes import front

    from dreamportrait.geometry.rays import project

    points = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(2)) * 0.2
    screen = to_screen(points, front(), 64)
    places, far = project(points, front())
    torch.testing.assert_close(screen[..., :2], places * 64)
    assert (screen[..., 2] <= far + 1e-5).all()
