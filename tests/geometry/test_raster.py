"""Tests of the z-buffer rasteriser, on triangles whose pixels can be counted by hand."""

import numpy as np
import torch

from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.raster import rasterise, seen_from
from dreamportrait.geometry.rays import points_at


def test_pixels_and_shares_of_a_triangle() -> None:
    places = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    drawn = rasterise(places, np.array([1.0, 2.0, 3.0]), np.array([[0, 1, 2]]), (4, 5))
    assert drawn.mask.astype(int).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    # The centre of the pixel in row 1, column 2 is at (2.5, 1.5): shares 0, 5/8 and 3/8, on the long side.
    assert np.allclose(drawn.shares[1, 2], [0, 5 / 8, 3 / 8])
    assert np.isclose(drawn.depth[1, 2], 2 * 5 / 8 + 3 * 3 / 8) and np.isinf(drawn.depth[3, 3])


def test_both_sides_of_a_triangle_are_drawn() -> None:
    places, depth = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]), np.ones(3)
    front, back = (rasterise(places, depth, np.array([order]), (4, 4)).mask for order in ([0, 1, 2], [2, 1, 0]))
    assert np.array_equal(front, back) and front.any()


def test_the_nearest_is_in_front_in_any_order() -> None:
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    places, depth = np.concatenate([square, square / 2]), np.repeat([2.0, 1.0], 4)
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    for order in (faces, faces[::-1]):
        near = rasterise(places, depth, order, (4, 4)).depth
        assert (near[:2, :2] == 1).all() and (near[2:] == 2).all() and (near[:, 2:] == 2).all()


def test_triangles_beyond_the_edge_or_without_area() -> None:
    places = np.array([[-9.0, -9.0], [9.0, -9.0], [0.0, 30.0], [50.0, 50.0], [60.0, 50.0], [50.0, 60.0], [1.0, 1.0]])
    drawn = rasterise(places, np.ones(7), np.array([[0, 1, 2], [3, 4, 5], [6, 6, 6]]), (3, 3))
    assert (drawn.faces == 0).all()  # the first covers the whole picture
    assert not rasterise(places, np.ones(7), np.zeros((0, 3), int), (3, 3)).mask.any()


def test_blended_values_are_linear() -> None:
    places = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    faces = np.array([[0, 1, 2]])
    drawn = rasterise(places, np.ones(3), faces, (8, 8))
    y, x = np.nonzero(drawn.mask)
    assert np.allclose(drawn.blend(faces, places), np.stack([x, y], 1) + 0.5)


def test_a_camera_sees_a_surface_where_its_depth_says() -> None:
    """Join points along the rays of a camera to triangles: they must appear at their pixels and distances."""
    camera, size = orbit([20.0], 10.0, 2.7, (0.0, 0.0, 0.0)), 8
    v, u = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    depth = (2.5 + 0.02 * u + 0.01 * v).float()
    points = points_at(depth[None, None], camera)[0].numpy()
    corner = (v * size + u)[:-1, :-1].reshape(-1, 1).numpy()
    faces = np.concatenate([corner + [0, 1, size], corner + [1, size + 1, size]])
    drawn = seen_from(points, faces, camera[0], size)
    inner = (slice(1, -1),) * 2  # pixel centres at the border lie on edges, where rounding decides
    assert drawn.mask[inner].all()
    assert np.allclose(drawn.depth[inner], depth.numpy()[inner], atol=1e-5)  # float32 positions of about 3
