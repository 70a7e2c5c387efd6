"""Tests of rasterize: cases worked out by hand, compiled code and CUDA sources against the reference, coverage."""

import hypothesis.strategies as st
import pytest
import torch
from cuda_emulator import emulated
from hypothesis import given, settings
from meshes import ball
from torch import Tensor

from eg3d_ops import rasterize

IMPLS = ("reference", "compiled")


def drawn(points: list, faces: list, impl: str, height: int = 4, width: int = 4) -> list:
    return rasterize(torch.tensor([points]), torch.tensor(faces), height, width, impl=impl)[0].tolist()


# ----- By hand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("face", [[0, 1, 2], [0, 2, 1]], ids=["clockwise", "anticlockwise"])
def test_one_triangle(impl: str, face: list[int]) -> None:
    """The hypotenuse runs through centres of pixels; it is no left or top edge, so these stay empty."""
    points = [[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 4.0, 1.0]]
    o = -1
    assert drawn(points, [face], impl) == [[0, 0, 0, o], [0, 0, o, o], [0, o, o, o], [o, o, o, o]]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_shared_edge_belongs_to_one_triangle(impl: str) -> None:
    """Two triangles make a square; the centres on the diagonal go to the lower right one, whose left edge it is."""
    points = [[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [4.0, 4.0, 1.0]]
    expected = [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert drawn(points, [[0, 1, 2], [3, 2, 1]], impl) == expected


@pytest.mark.parametrize("impl", IMPLS)
def test_the_nearer_triangle_wins_and_ties_go_to_the_first(impl: str) -> None:
    corners = [[-9.0, -9.0], [20.0, -9.0], [-9.0, 20.0]]
    points = [[*xy, z] for z in (2.0, 1.5, 1.5) for xy in corners]
    assert drawn(points, [[0, 1, 2], [3, 4, 5], [6, 7, 8]], impl, 2, 3) == [[1] * 3] * 2


@pytest.mark.parametrize("impl", IMPLS)
def test_depth_is_perspective(impl: str) -> None:
    """A slope from z = 1 to z = 3 has z = 1.5 at half its way on the screen, where 1/z is 2/3."""
    slope = [[0.0, -50.0, 1.0], [0.0, 50.0, 1.0], [8.0, 0.0, 3.0]]
    wall = [[-50.0, -50.0, 1.6], [60.0, -50.0, 1.6], [0.0, 90.0, 1.6]]
    # 1/z = 1 - x / 12 for the slope, 0.625 for the wall: the slope is nearer up to x = 4.5.
    assert drawn(slope + wall, [[0, 1, 2], [3, 4, 5]], impl, 1, 8) == [[0, 0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "points",
    [
        [[0.0, 0.0, 1.0], [9.0, 0.0, 1.0], [0.0, 9.0, -1.0]],
        [[0.0, 0.0, 1.0], [9.0, 0.0, float("nan")], [0.0, 9.0, 1.0]],
        [[float("inf"), 0.0, 1.0], [9.0, 0.0, 1.0], [0.0, 9.0, 1.0]],
        [[0.0, 0.0, 1.0], [3e6, 0.0, 1.0], [0.0, 9.0, 1.0]],
        [[0.0, 0.0, 1.0], [4.0, 4.0, 1.0], [2.0, 2.0, 1.0]],
        [[10.0, 0.0, 1.0], [20.0, 0.0, 1.0], [10.0, 9.0, 1.0]],
    ],
    ids=["behind the camera", "NaN", "infinite", "too far outside", "no area", "beside the picture"],
)
def test_nothing_is_drawn(impl: str, points: list) -> None:
    assert drawn(points, [[0, 1, 2]], impl) == [[-1] * 4] * 4


@pytest.mark.parametrize("impl", IMPLS)
def test_no_faces_and_no_pictures(impl: str) -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert rasterize(torch.zeros(2, 3, 3), none, 2, 3, impl=impl).tolist() == [[[-1] * 3] * 2] * 2
    assert rasterize(torch.zeros(0, 3, 3), none, 2, 3, impl=impl).shape == (0, 2, 3)


# ----- Implementations against each other -----------------------------------------------------------------


def scene(seed: int, vertices: int = 60, faces: int = 90) -> tuple[Tensor, Tensor]:
    """Return two views of random triangles, some outside of the picture, some with vertices behind the camera."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, vertices, 3, generator=generator)
    points[..., :2] = points[..., :2] * 50 - 8
    points[..., 2] = points[..., 2] * 3 - 0.1
    if seed % 2:  # vertices on pixel centres and corners, and equal depths: edges and ties are hit exactly
        points[..., :2] = (points[..., :2] * 2).round() / 2
        points[..., 2] = points[..., 2].ceil()
    return points, torch.randint(0, vertices, (faces, 3), generator=generator)


@pytest.mark.parametrize("seed", range(20))
def test_compiled_equals_reference(seed: int) -> None:
    points, faces = scene(seed)
    compiled, reference = (rasterize(points, faces, 33, 41, impl=impl) for impl in ("compiled", "reference"))
    assert compiled.equal(reference)
    assert 0.3 < (compiled >= 0).float().mean() <= 1  # the scenes show something


@pytest.mark.lengthy  # builds the emulator
@pytest.mark.parametrize("seed", range(20))
def test_cuda_sources_equal_reference(ops, seed: int) -> None:
    points, faces = scene(seed)
    expected = rasterize(points, faces, 33, 41, impl="reference")
    assert ops.rasterize(points, faces.int(), 33, 41).equal(expected)
    with emulated.reversed_threads():
        assert ops.rasterize(points, faces.int(), 33, 41).equal(expected)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(20))
def test_gpu_equals_reference(seed: int) -> None:
    points, faces = scene(seed)
    found = rasterize(points.cuda(), faces.cuda(), 33, 41, impl="compiled")
    assert found.cpu().equal(rasterize(points, faces, 33, 41, impl="reference"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-40, 90)] * 2, st.integers(-1, 3)), min_size=3, max_size=8),
    st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=6),
)
def test_any_coordinates(corners: list, faces: list) -> None:
    """Coordinates are multiples of an eighth of a pixel, so that centres often lie on edges."""
    points = torch.tensor([[[x / 8, y / 8, float(z)] for x, y, z in corners]])
    found = [rasterize(points, torch.tensor(faces), 8, 9, impl=impl) for impl in IMPLS]
    assert found[0].equal(found[1])


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set(isa: str) -> None:
    from eg3d_ops._backend import cpu_isa, set_cpu_isa

    points, faces = scene(3)
    before = cpu_isa()
    try:
        set_cpu_isa(isa)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        assert rasterize(points, faces, 33, 41, impl="compiled").equal(rasterize(points, faces, 33, 41, "reference"))
    finally:
        set_cpu_isa(before)


# ----- Coverage -------------------------------------------------------------------------------------------


def test_a_closed_surface_has_no_cracks_and_no_double_cover() -> None:
    """Each pixel of the outline's inside is covered by exactly one front face and exactly one back face."""
    points, faces = ball(24, 40)
    points = points.float()
    on_screen = torch.stack([points[:, 0] * 30.3 + 32.1, points[:, 1] * 29.7 + 31.6, points[:, 2] + 3], 1)
    a, b, c = (on_screen[faces[:, k], :2] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    covers = []
    for side in (faces[area > 0], faces[area < 0]):
        singly = torch.stack([rasterize(on_screen[None], side[i : i + 1], 64, 64)[0] >= 0 for i in range(len(side))])
        covers.append(singly.sum(0))
    whole = rasterize(on_screen[None], faces, 64, 64)[0] >= 0
    for cover in covers:
        assert cover.max() == 1
        assert (cover == 1).equal(whole)
    assert whole.sum() > 2500  # pi 30 x 30 is 2827


# ----- The op and its arguments ---------------------------------------------------------------------------


def test_opcheck() -> None:
    points, faces = scene(1)
    rasterize(points, faces, 5, 6, impl="compiled")
    torch.library.opcheck(torch.ops.eg3d_ops.rasterize.default, (points, faces.int(), 5, 6))


@pytest.mark.parametrize("impl", IMPLS)
def test_views_of_memory(impl: str) -> None:
    points, faces = scene(2)
    strided = points.transpose(1, 2).contiguous().transpose(1, 2)
    found = rasterize(strided, faces.t().contiguous().t(), 9, 8, impl=impl)
    assert found.equal(rasterize(points, faces, 9, 8, impl="reference"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(3, 3)}, "points must have rank 3"),
        ({"points": torch.zeros(1, 3, 2)}, r"points must have shape \[N, V, 3\]"),
        ({"points": torch.zeros(1, 3, 3, dtype=torch.float64)}, "points must be float32"),
        ({"faces": torch.zeros(1, 4, dtype=torch.int64)}, r"faces must have shape \[F, 3\]"),
        ({"faces": torch.tensor([[0, 1, 3]])}, "indices of the 3 vertices, from 0 on; got 3"),
        ({"faces": torch.tensor([[0, 1, -2]])}, "got -2"),
        ({"faces": torch.zeros(1, 3)}, "faces must be a tensor of int32 or int64"),
        ({"height": 0}, "height must be at least 1"),
        ({"width": 40_000}, "width must be at most 32768"),
    ],
)
def test_wrong_arguments_are_refused(change: dict, message: str) -> None:
    given = {"points": torch.ones(1, 3, 3), "faces": torch.tensor([[0, 1, 2]]), "height": 4, "width": 4}
    with pytest.raises((TypeError, ValueError), match=message):
        rasterize(**(given | change))
