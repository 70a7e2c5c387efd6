"""Tests of the miniature head: its mesh, expressions and rig, and that it shows what the world shows."""

import numpy as np
import pytest
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.mini.head import basis, build, expressions, rig
from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.agreement import agreement
from dreamportrait.mini.head.bake import bake, fine_atlas
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.attributes import TRAITS, make_attributes
from dreamportrait.miniworld.faces import SCALE
from dreamportrait.systems.heads.landmarks import landmarks
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.skinning import joints, posed, shaped
from dreamportrait.weights.registry import locate

MOVING = (  # that specs of ARKit heads expect to move
    *("jawOpen", "jawLeft", "jawRight", "jawForward", "mouthClose", "mouthPucker", "mouthFunnel", "browInnerUp"),
    *("cheekPuff", "mouthSmileLeft", "mouthFrownRight", "mouthStretchLeft", "eyeBlinkLeft", "eyeWideRight"),
    *("eyeSquintLeft", "browDownLeft", "browOuterUpRight", "noseSneerLeft", "eyeLookUpLeft", "eyeLookInRight"),
)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    head: HeadModel = from_pretrained("mini/head")
    return head


@pytest.fixture(scope="module")
def grid() -> mesh.Grid:
    return mesh.build()


def apart(points: Tensor, others: Tensor) -> float:
    """Return the largest distance from a point [V, 3] to the nearest of the others."""
    return float(torch.cdist(points.double(), others.double()).amin(1).max())


def mirrored(points: Tensor) -> Tensor:
    return points * torch.tensor([-1.0, 1, 1])


def weights_for(model: HeadModel, **values: float) -> Tensor:  # [1, 52]
    psi = torch.zeros(1, model.num_expressions)
    for name, value in values.items():
        psi[0, model.expression(name)] = value
    return psi


# ----- The shipped model ----------------------------------------------------------------------------------


def test_it_is_small_and_complete(model: HeadModel) -> None:
    assert sum(path.stat().st_size for path in locate("mini/head").rglob("*")) < 1_000_000
    assert len(set(model.expr_names)) == 52
    assert model.joint_names == ("root", "neck", "jaw", "leftEye", "rightEye")
    assert model.num_shapes <= 16
    assert model.landmark_faces is not None
    assert len(model.landmark_faces) == 68


def test_it_is_symmetric(model: HeadModel) -> None:
    # Vertices are rounded to 2^-20, 1e-6.
    assert apart(mirrored(model.v_template), model.v_template) < 5e-6
    assert model.mean_texture is not None
    # The atlas mirrors the head; rays start from floating-point places, and 64 heads are averaged.
    face = model.mean_texture[:, 1:47, 1:63]
    assert (face - face.flip(2)).abs().mean() < 0.01


def test_left_and_right_are_mirror_images(model: HeadModel) -> None:
    for name in ("eyeBlink", "mouthSmile", "browDown", "eyeLookIn", "cheekSquint", "mouthUpperUp"):
        left = posed(model, torch.zeros(1, model.num_shapes), weights_for(model, **{f"{name}Left": 1.0}))[0]
        right = posed(model, torch.zeros(1, model.num_shapes), weights_for(model, **{f"{name}Right": 1.0}))[0]
        # Directions are stored with 11 bits, and are up to 0.1 long.
        assert apart(mirrored(left), right) < 1e-4, name


def test_expressions_move_something(model: HeadModel) -> None:
    assert model.exprdirs is not None
    moved = model.exprdirs.abs().amax((0, 1))
    assert all(moved[model.expression(name)] > 0.002 for name in MOVING)
    still = {name for name, most in zip(model.expr_names, moved, strict=True) if most == 0}
    assert still == set(expressions.empty_names()) == {"tongueOut"}


def test_the_left_of_the_head_is_at_positive_x(model: HeadModel) -> None:
    assert model.exprdirs is not None
    moved = model.exprdirs[..., model.expression("mouthSmileLeft")].norm(dim=1)
    assert (model.v_template[:, 0] * moved).sum() > 0


def test_rest_pose_is_the_identity(model: HeadModel) -> None:
    beta = torch.randn(4, model.num_shapes, generator=torch.Generator().manual_seed(0))
    found = posed(model, beta, torch.zeros(4, 52), torch.zeros(4, 5, 3))
    torch.testing.assert_close(found, shaped(model, beta), atol=1e-6, rtol=0)


def test_joints_lie_where_they_should(model: HeadModel) -> None:
    root, neck, jaw, left, right = (joints(model, torch.zeros(1, model.num_shapes))[0] / SCALE).tolist()
    assert root[1] < neck[1] < jaw[1] < left[1]
    assert left[0] == pytest.approx(0.084, abs=0.004)
    assert right[0] == pytest.approx(-0.084, abs=0.004)
    assert [abs(place[0]) < 1e-3 for place in (root, neck, jaw)] == [True] * 3


def test_landmarks_lie_on_the_face(model: HeadModel) -> None:
    points = landmarks(model, model.v_template[None])[0] / SCALE
    torch.testing.assert_close(points[36:42].mean(0), torch.tensor([-0.084, 0.005, 0.215]), atol=0.02, rtol=0)
    torch.testing.assert_close(points[48:60].mean(0), torch.tensor([0.0, -0.148, 0.205]), atol=0.02, rtol=0)


def test_a_blink_moves_the_landmarks_of_the_lids(model: HeadModel) -> None:
    rest, blink = (
        landmarks(model, posed(model, torch.zeros(1, model.num_shapes), weights_for(model, eyeBlinkRight=value)))[0]
        / SCALE
        for value in (0.0, 1.0)
    )
    down = (rest - blink)[:, 1]
    assert down[[37, 38]].min() > 0.02  # the right eye is about 0.07 high
    assert down[[40, 41]].max() < -0.005
    assert rest[37, 0] < rest[38, 0] < 0  # from the left of a viewer
    assert down[42:48].abs().max() == 0  # the left eye


def test_it_shows_the_heads_of_the_world(model: HeadModel) -> None:
    """Eight of the hundred heads on the card; the limits are those of the hundred."""
    found = agreement(model, 8)
    assert found["overlap of silhouettes"] >= 0.98
    assert found["colour error, of 255"] <= 2


# ----- How it is made -------------------------------------------------------------------------------------


def test_a_blink_clears_the_eye(grid: mesh.Grid) -> None:
    """At every moment of a blink, the edge of the lid is in front of the ball, or at most 4 % of its radius inside."""
    mean = basis.positions(basis.shape_of("man"), grid)
    dirs = expressions.dirs(grid, mean)
    blink = dirs[..., expressions.NAMES.index("eyeBlinkLeft")]
    eye = mean[grid.at("left_eye")]
    rings = eye[1:].reshape(mesh.EYE_RINGS, -1, 3)
    center = rings[int(np.abs(mesh.eye_rings() - np.pi / 2).argmin())].mean(0)
    radii = np.abs(eye - center).max(0)
    lid = grid.at("left_upper_lid").reshape(mesh.LID_ROWS, -1)[-1, 2:-2]  # its edge without the corners
    for share in np.linspace(0.3, 1, 8):
        points = mean[lid] + share * blink[lid]
        assert (np.linalg.norm((points - center) / radii, axis=1) > 0.96).all(), share


def test_the_mouth_closes_again(grid: mesh.Grid) -> None:
    mean = basis.positions(basis.shape_of("woman"), grid)
    dirs = expressions.dirs(grid, mean)
    opened, closed = (dirs[..., expressions.NAMES.index(name)] for name in ("jawOpen", "mouthClose"))
    upper, lower = rig.mouth_line(grid), grid.at("pouch").reshape(4, -1)[3]

    def gap(shift: Array) -> float:
        return float(np.linalg.norm((mean + shift)[upper] - (mean + shift)[lower], axis=1).max() / SCALE)

    assert gap(opened) > 0.05
    assert gap(opened + closed) < 1e-9


def test_skin_weights(grid: mesh.Grid) -> None:
    mean = basis.positions(basis.shape_of("man"), grid)
    weights = rig.skin_weights(grid, mean)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert weights.min() >= 0
    x, y, z = (mean / SCALE).T
    assert weights[(y > 0.1), 1].min() == 1  # the skull follows the neck
    chin = np.argmin(np.abs(x) + np.abs(y + 0.25) + np.abs(z - 0.15))
    assert weights[chin, 2] > 0.9
    assert (weights[grid.at("shoulders"), 0] == 1).all()


def test_named_traits_move_the_head_as_the_world_does(model: HeadModel, grid: mesh.Grid) -> None:
    """A trait that shows alike in women and men moves the vertices as in the world.

    30 %: the basis keeps 99.5 % of the variance, and heads change along curves.
    """
    assert model.trait_dirs is not None
    assert model.shape_names == ("gender", *basis.SHAPE_TRAITS)
    for name in ("head_height", "nose", "ears", "shoulders"):
        weights = model.trait_dirs[model.shape_names.index(name)]
        moved = (model.shapedirs @ weights).numpy()
        ends = [basis.positions(basis.shape_of("man", {name: value}), grid) for value in (-2, 2)]
        exact = (ends[1] - ends[0]) / 4
        assert np.linalg.norm(moved - exact) < 0.3 * np.linalg.norm(exact), name


def test_the_basis_is_the_same_every_time(grid: mesh.Grid) -> None:
    first, again = basis.learn(grid, 40), basis.learn(grid, 40)
    assert np.array_equal(first.mean, again.mean)
    assert np.array_equal(first.dirs, again.dirs)


def test_textures_show_the_attributes(grid: mesh.Grid) -> None:
    """Red hair is red above the forehead and at the back; clothes are green; the face keeps its skin."""
    attributes = make_attributes(gender="woman", hair_style="long", hair_color="red", clothes="green", skin="pale")
    texture = bake(attributes, np.zeros(len(TRAITS)), grid, fine_atlas(grid)) * 255
    hair, clothes = texture[:, 3, 30], texture[:, 54, 44]
    nose = texture[:, 30, 32]
    assert hair[0] > 140
    assert hair[2] < 60
    assert clothes[1] > 1.5 * max(clothes[0], clothes[2])
    assert nose.min() > 150
    np.testing.assert_array_equal(texture.shape, [3, 64, 64])
    assert np.isfinite(texture).all()


@pytest.mark.slow
def test_it_is_rebuilt_as_it_is_shipped(model: HeadModel) -> None:
    """Half precision has 11 bits. On the machine that built the shipped file, even the bits agree."""
    again = build.head_model()
    assert again.faces.equal(model.faces)
    torch.testing.assert_close(again.v_template, model.v_template, atol=1e-6, rtol=0)
    for name in ("shapedirs", "exprdirs", "posedirs", "mean_texture"):
        torch.testing.assert_close(getattr(again, name), getattr(model, name), atol=2**-20, rtol=2**-10)


@pytest.mark.slow
def test_it_shows_a_hundred_heads_of_the_world(model: HeadModel) -> None:
    found = agreement(model)
    assert found["overlap of silhouettes"] >= 0.98
    assert found["colour error, of 255"] <= 2
