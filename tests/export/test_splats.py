"""Tests of splats: the rasteriser, the points they are made from, the network that corrects them, and make_splats."""

import pytest
import torch
from balls import RADIUS, balls
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.mesh import METRES
from dreamportrait.export.splat_head import multiply, quaternions
from dreamportrait.export.splat_points import FEATURES, lattice, splat_cameras, surface_points
from dreamportrait.export.splats import make_splats
from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.rays import project
from dreamportrait.geometry.splat_raster import DENSEST, FAINTEST, draw_splats, rotation_matrices
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

CAMERA = orbit([10.0], 5.0, 2.7, (0.0, 0.0, 0.0))[0].double()
FRONT = orbit([0.0], 0.0, 2.7, (0.0, 0.0, 0.0))[0].double()
FOCAL = float(FRONT[16])
Scene = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def scene(count: int, size: float = 0.02) -> Scene:
    rng = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, dtype=torch.float64)

    turns = torch.randn(count, 4, generator=rng, dtype=torch.float64)
    rotations = torch.nn.functional.normalize(turns, dim=1)
    return (
        (uniform(count, 3) - 0.5) * 0.5,
        size * (uniform(count, 3) + 0.2),
        rotations,
        uniform(count, 3),
        uniform(count),
    )


def at(*places: tuple[float, float, float], opacity: float, size: float = 0.01) -> Scene:
    """Return balls at places: the first red, the second green, the third blue."""
    count = len(places)
    turns = torch.tensor([[1.0, 0, 0, 0]]).double().expand(count, 4)
    colors = torch.eye(3).double()[:count]
    return (
        torch.tensor(places).double(),
        torch.full((count, 3), size).double(),
        turns,
        colors,
        colors.new_full((count,), opacity),
    )


# The rasteriser.


def dense(splats: Scene, camera: Tensor, size: int, blur: float) -> tuple[Tensor, Tensor]:
    """Draw by definition: every splat at every pixel, one after the other from near to far.

    The Jacobian of the projection comes from autograd, covariances are inverted as matrices.
    """
    positions, scales, rotations, colors, opacities = splats
    matrix = camera[:16].reshape(4, 4)
    depth = (positions - matrix[:3, 3]) @ matrix[:3, 2]
    steps = torch.arange(size).double() + 0.5
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)  # [y, x, 2]
    picture, light = torch.zeros(3, size, size).double(), torch.ones(size, size).double()
    for i in depth.argsort().tolist():

        def place(position: Tensor) -> Tensor:
            return project(position[None, None], camera[None])[0][0, 0] * size

        slopes = torch.autograd.functional.jacobian(place, positions[i])  # [2, 3]
        axes = rotation_matrices(rotations[i]) @ torch.diag(scales[i])
        covariance = slopes @ axes @ axes.T @ slopes.T + blur * torch.eye(2).double()
        offset = pixels - place(positions[i])
        distance = torch.einsum("yxa,ab,yxb->yx", offset, covariance.inverse(), offset)
        alpha = (opacities[i] * torch.exp(-0.5 * distance)).clamp(max=DENSEST)
        alpha = torch.where(alpha >= FAINTEST, alpha, 0.0)
        picture, light = picture + colors[i][:, None, None] * alpha * light, light * (1 - alpha)
    return picture, 1 - light


@pytest.mark.parametrize("blur", [0.3, 0.02])
def test_pictures_are_those_of_the_definition(blur: float) -> None:
    splats = scene(40)
    drawn, (colors, opacity) = draw_splats(*splats, CAMERA, 24, blur), dense(splats, CAMERA, 24, blur)
    assert opacity.max() > 0.8
    # Doubles: only the order of sums differs.
    assert (drawn.colors - colors).abs().max() < 1e-12 and (drawn.opacity[0] - opacity).abs().max() < 1e-12


def test_gradients() -> None:
    """Compare all gradients with differences, away from the edges where splats begin and end to count."""
    splats = [part.requires_grad_() for part in scene(3, size=0.1)]
    opacities = torch.tensor([0.3, 0.5, 0.7]).double().requires_grad_()

    def picture(*parts: Tensor) -> Tensor:
        rotations = torch.nn.functional.normalize(parts[2], dim=1)
        return draw_splats(parts[0], parts[1], rotations, parts[3], parts[4], CAMERA, 4).colors

    assert torch.autograd.gradcheck(picture, (*splats[:4], opacities))


def test_the_nearer_ball_covers_the_other() -> None:
    # Both lie on the axis: at the middle of an odd picture, both count with their opacity.
    splats = at((0, 0, -0.1), (0, 0, 0.1), opacity=0.6)
    colors, opacity = draw_splats(*splats, FRONT, 31)
    assert colors[:, 15, 15].tolist() == pytest.approx([0.6 * 0.4, 0.6, 0])
    assert float(opacity[0, 15, 15]) == pytest.approx(1 - 0.4**2)


def test_a_ball_is_where_and_as_large_as_it_is_seen() -> None:
    splats = at((0.1, 0.05, 0.2), opacity=0.5)
    picture = draw_splats(*splats, CAMERA, 256, blur=0.0).opacity[0]
    rows, columns = (picture.sum(1 - axis) / picture.sum() for axis in (0, 1))
    steps = torch.arange(256) + 0.5
    place = project(splats[0][None], CAMERA[None])[0][0, 0] * 256
    x, y = float((columns * steps).sum()), float((rows * steps).sum())
    assert (x, y) == pytest.approx(place.tolist(), abs=0.01)  # pixels; the ball is cut where it fades
    z = float((splats[0] - CAMERA[[3, 7, 11]])[0] @ CAMERA[[2, 6, 10]])
    wide = float((columns * (steps - x) ** 2).sum()) ** 0.5
    assert wide == pytest.approx(0.01 * FOCAL / z * 256, rel=0.06)  # likewise: the cut takes 5 % of the deviation


@pytest.mark.parametrize("place", [(0, 0, 3.0), (2.0, 0, 0)], ids=["behind the camera", "beside the picture"])
def test_a_ball_out_of_sight(place: tuple[float, float, float]) -> None:
    drawn = draw_splats(*at(place, opacity=0.9), FRONT, 16)
    assert drawn.colors.eq(0).all() and drawn.opacity.eq(0).all()


def test_wrong_shapes_are_named() -> None:
    splats = list(scene(3))
    splats[2] = splats[2][:, :3]
    with pytest.raises(ValueError, match="rotations"):
        draw_splats(*splats, FRONT, 16)


# Rotations.


def test_quaternions_and_matrices() -> None:
    turns = scene(200)[2]
    half_turns = torch.eye(4).double()
    for each in (turns, half_turns):
        back = quaternions(rotation_matrices(each))
        assert ((back * each).sum(1).abs() - 1).abs().max() < 1e-12  # q and -q are the same rotation
    product = rotation_matrices(multiply(turns[:100], turns[100:]))
    assert (product - rotation_matrices(turns[:100]) @ rotation_matrices(turns[100:])).abs().max() < 1e-12


# The points, on balls.


def test_points_lie_on_the_surface_and_face_the_viewer() -> None:
    points = surface_points(balls(), 7000)
    assert len(points) == 7000
    distance = points.positions.norm(dim=1)
    # Half of the light is gone 0.016 below the surface. The grid of densities has cells of 0.024.
    assert (distance - RADIUS).abs().max() < 0.048 and (distance - RADIUS).abs().median() < 0.02
    assert (points.frames.mT @ points.frames - torch.eye(3)).abs().max() < 1e-5
    outward = (points.frames[:, :, 2] * points.positions).sum(1) / distance
    assert outward.abs().quantile(0.05) > 0.9  # normals; just behind the edge of a view they face inwards
    assert outward.quantile(0.1) > 0.9
    assert points.opacity.min() > 0.05 and points.opacity.median() > 0.99
    assert points.features.shape == (7000, FEATURES) and points.features.isfinite().all()


def test_points_of_a_view_are_one_spacing_apart() -> None:
    points = surface_points(balls(), 7000)
    cameras = splat_cameras(balls())
    front = slice(0, 1000)  # the first seventh comes from the front view
    places = project(points.positions[None, front], cameras[:1])[0][0]
    nearest = torch.cdist(places, places).fill_diagonal_(9).min(1).values
    # A square grid would have 1. The lattice of the golden ratio is a bit closer in one direction, wider in another.
    spacings = nearest * 2.7 / float(cameras[0, 20]) / points.spacing[front]
    assert 0.7 < spacings.median() < 1.3


def test_colours_are_those_of_the_picture() -> None:
    head = balls()
    points, cameras = surface_points(head, 7000), splat_cameras(head)
    with torch.no_grad():
        view = head.view(cameras[:1])
    front = slice(0, 1000)
    places = project(points.positions[None, front], cameras[:1])[0] * 2 - 1
    looked_up = torch.nn.functional.grid_sample(view.image, places[None], align_corners=False)[0, :, 0].T / 2 + 0.5
    inside = points.features[front, -2] > 0.9  # pixels around agree in depth: bilinear interpolation remains
    assert inside.float().mean() > 0.5
    assert (points.colors[front] - looked_up)[inside].abs().max() < 0.1 * float(view.image.std())


@pytest.mark.parametrize("count", [10, 1000, 4097])
def test_the_lattice_is_even(count: int) -> None:
    places = lattice(count)
    assert places.shape == (count, 2) and places.min() >= 0 and places.max() <= 1
    corners = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    inside = (places[:, None] < corners).all(2).float().mean(0)
    # Random places would differ by about 1 / sqrt(count); this lattice by about log(count) / count.
    assert (inside - corners.prod(1)).abs().max() < 3 / count * (1 + torch.tensor(count).log())


def test_the_cameras_stay_within_the_trained_range() -> None:
    head = balls()
    head.generator.dataset_label_std[3] = 2.0  # cameras from all around
    cameras = splat_cameras(head)
    assert cameras.shape == (7, 25) and cameras[:, 11].min() > 0  # none looks at the back


@pytest.fixture(scope="module")
def portrait() -> Planes:
    return DreamPortraitPipeline.from_pretrained("mini", offline=True)("a woman with red hair", 5003).head


def test_the_background_can_be_left_out(portrait: Planes) -> None:
    whole, alone = surface_points(portrait, 7000), surface_points(portrait, 7000, background=False)
    assert len(whole) == len(alone) == 7000
    behind = whole.positions[:, 2] < -0.2  # the head is 0.35 wide
    assert 0.2 < behind.float().mean() < 0.8 and (alone.positions[:, 2] > -0.2).all()
    assert alone.spacing.median() < 0.9 * whole.spacing.median()  # the same number on less surface
    places = project(alone.positions[None], portrait.generator.config.around([0.0]))[0][0]
    assert places[:, 0].min() > -1e-4 and places[:, 0].max() < 1 + 1e-4  # no ghosts beside the front view


# make_splats.


def test_splats_look_like_the_pictures(portrait: Planes) -> None:
    """The shipped model and network, from cameras that are in none of the seven views."""
    cameras = portrait.generator.config.around([-20.0, 8.0], 3.0)
    wanted = (portrait.views(cameras)[0].colors + 1) / 2
    for settings, bound in (({}, 27.0), ({"corrections": False}, 20.0)):
        splats = make_splats(portrait, **settings)
        for picture, drawn in zip(wanted, splats.draw(cameras, 64, blur=0.0), strict=True):
            assert -10 * torch.log10((drawn.colors.clamp(0, 1) - picture).square().mean()) > bound


def test_splats_are_in_metres_and_show_the_ball() -> None:
    head = balls()
    splats = make_splats(head, 20_000)
    assert repr(splats) == "Splats(20000)" and splats.positions.dtype == "float32"
    assert abs(splats.positions).max() < METRES * (RADIUS + 0.048)
    cameras = head.generator.config.around([0.0, 15.0], 5.0)
    for camera, drawn in zip(cameras, splats.draw(cameras, 32), strict=True):
        seen = head.views(camera[None], resolution=32)[0].opacity[0, 0] > 0.5
        shown = drawn.opacity[0] > 0.5
        assert (shown & seen).sum() == seen.sum()  # no hole
        # A rim of a cell of the grid of densities (0.024) and of the blur (0.55 pixels of 0.02) at most.
        assert shown.sum() < torch.pi * ((RADIUS + 0.035) / 0.0198) ** 2


def test_covariances() -> None:
    splats = make_splats(balls(), 1000)
    sizes = torch.linalg.eigvalsh(torch.from_numpy(splats.covariances).double()).clamp(min=0).sqrt()
    assert (sizes - torch.from_numpy(splats.scales).sort(1).values).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("heads", "settings", "message"),
    [
        (balls(2), {}, r"head holds 2 heads; choose one of them, for example head\[0\]"),
        (balls(), {"count": 10}, "count=10: must lie between 1000 and 2000000"),
        (balls(density=0.0), {}, "this head is empty: 7 views see nothing, the largest opacity is"),
    ],
)
def test_bad_input(heads: Planes, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_splats(heads, **settings)
